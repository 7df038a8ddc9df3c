"""What does an ungated teacher do to training? Several methods, the same seeds: success, gradient norm, entropy.

    python benchmarks/instability.py [--methods NAME ...] [--seeds 1 2 3] [--jobs 2] [--out logs/instability]
        [--picture PNG] [overrides ...]

    grpo            rewards alone
    sdar            the gated term
    naive hybrid    the raw gap as the weight: sampled reverse KL, no gate
    release hybrid  GRPO+OPSD as the paper's authors run it: a constant gate of 1/2
    opsd            the ungated term alone, without rewards; left out unless it is named

Each is a run of ``train.py`` with the default configuration and lambda = 0.01 (``algorithm.objective.
distillation_coefficient=...`` as an override changes it for the three). Runs that are finished are reused, and without
all of them there is no table. It gives the means of the last ten iterations over the seeds, each with its smallest and
largest; the picture (extra ``sdar[plot]``) shows every iteration, a thin line per seed and a thick one for their mean.
Both show what these runs did, and nothing about runs of another size.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import product
from pathlib import Path

from reused_runs import ROOT, make
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

METHODS: dict[str, list[str]] = {
    "grpo": ["algorithm=grpo"],
    "sdar": ["algorithm=sdar"],
    "naive_hybrid": ["algorithm=sdar", "gate=none", "divergence=sampled_rkl"],
    "release_hybrid": ["algorithm=grpo_opsd_release"],
    "opsd": ["algorithm=opsd"],
}
COLORS = {
    "grpo": "tab:gray",
    "sdar": "tab:blue",
    "naive_hybrid": "tab:red",
    "release_hybrid": "tab:orange",
    "opsd": "tab:purple",
}
BESIDE_REWARDS = [name for name in METHODS if name != "opsd"]
TAGS = {
    "rollout/success_rate": "success rate, training rollouts",
    "train/grad_norm": "gradient norm before clipping",
    "rollout/entropy": "entropy of the policy, nats",
}
LAST = 10


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "instability")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=BESIDE_REWARDS, choices=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--picture", type=Path, help="picture to write")
    arguments, overrides = parser.parse_known_args()
    if arguments.picture is not None:
        _check_drawing()
    make(
        {
            arguments.out / f"{method}-seed{seed}": _overrides(seed, method, overrides)
            for seed, method in product(arguments.seeds, arguments.methods)
        },
        arguments.jobs,
    )
    print(f"\nmean of the last {LAST} iterations over {len(arguments.seeds)} seeds (least to largest)")
    print(f"{'':<16}" + "".join(f"{tag:>32}" for tag in TAGS))
    for method in arguments.methods:
        folders = [arguments.out / f"{method}-seed{seed}" for seed in arguments.seeds]
        cells = []
        for tag in TAGS:
            ends = [statistics.fmean(curve(folder, tag)[1][-LAST:]) for folder in folders]
            cells.append(f"{statistics.fmean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f})")
        print(f"{method:<16}" + "".join(f"{cell:>32}" for cell in cells))
    if arguments.picture is not None:
        _draw(arguments.picture, arguments.out, arguments.methods, arguments.seeds)


def _check_drawing() -> None:
    """Before hours of work, not after them."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SystemExit("error: --picture needs matplotlib; run pip install 'sdar[plot]'") from None


def _draw(picture: Path, out: Path, methods: list[str], seeds: list[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (tag, title) in zip(figure.subplots(1, len(TAGS)), TAGS.items(), strict=True):
        for method in methods:
            curves = [curve(out / f"{method}-seed{seed}", tag) for seed in seeds]
            for steps, values in curves:
                axes.plot(steps, values, color=COLORS[method], alpha=0.25, lw=0.8)
            means = [statistics.fmean(values) for values in zip(*(values for _, values in curves), strict=True)]
            label = f"{method.replace('_', ' ')} ({len(seeds)} seeds)"
            axes.plot(curves[0][0], means, color=COLORS[method], lw=1.8, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.savefig(picture, dpi=110)


def _overrides(seed: int, method: str, overrides: list[str]) -> list[str]:
    # GRPO has no distillation and OPSD nothing else: an override of the coefficient is not meant for them.
    own = [text for text in overrides if method not in ("grpo", "opsd") or "distillation_coefficient" not in text]
    return [*METHODS[method], f"seed={seed}", *own]


def curve(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """Iterations and values of a tag of a run."""
    events = sorted(folder.rglob("events.out.tfevents.*"))
    if not events:
        raise SystemExit(f"error: {folder} holds no TensorBoard events")
    accumulator = EventAccumulator(str(events[0].parent), size_guidance={"scalars": 0})
    accumulator.Reload()
    # A resumed run may hold an iteration twice.
    values = {scalar.step: scalar.value for scalar in accumulator.Scalars(tag)}
    return sorted(values), [values[step] for step in sorted(values)]


if __name__ == "__main__":
    main()
