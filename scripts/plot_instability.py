"""The runs of ``benchmarks/instability.py`` as a picture: ``python scripts/plot_instability.py FOLDER OUT.png``.

A thin line per seed, a thick one for their mean. Needs the extra ``sdar[plot]``.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PANELS = {
    "rollout/success_rate": "success rate, training rollouts",
    "train/grad_norm": "gradient norm before clipping",
    "rollout/entropy": "entropy of the policy, nats",
}
COLOURS = {"grpo": "tab:gray", "sdar": "tab:blue", "naive_hybrid": "tab:red", "release_hybrid": "tab:orange"}


def main() -> None:
    """Read, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs, METHOD-seedN each")
    parser.add_argument("out", type=Path, help="picture to write")
    arguments = parser.parse_args()
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("error: drawing needs matplotlib; allowed is pip install 'sdar[plot]'") from None
    runs: dict[str, list[EventAccumulator]] = defaultdict(list)
    for run in sorted(arguments.folder.glob("*-seed*")):
        events = sorted(run.rglob("events.out.tfevents.*"))
        if run.is_dir() and events:
            accumulator = EventAccumulator(str(events[0].parent), size_guidance={"scalars": 0})
            accumulator.Reload()
            runs[run.name.rpartition("-seed")[0]].append(accumulator)
    if not runs:
        raise SystemExit(f"error: folder={arguments.folder} holds no runs named METHOD-seedN")
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (tag, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for method in [name for name in COLOURS if name in runs]:
            by_step: dict[int, list[float]] = defaultdict(list)
            for accumulator in runs[method]:
                scalars = accumulator.Scalars(tag)
                axes.plot(
                    [s.step for s in scalars], [s.value for s in scalars], color=COLOURS[method], alpha=0.25, lw=0.8
                )
                for scalar in scalars:
                    by_step[scalar.step].append(scalar.value)
            means = [statistics.fmean(values) for values in by_step.values()]
            label = f"{method.replace('_', ' ')} ({len(runs[method])} seeds)"
            axes.plot(list(by_step), means, color=COLOURS[method], lw=1.8, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
