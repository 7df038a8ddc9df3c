"""What does an ungated teacher do to training? Four methods, the same seeds: success, gradient norm, entropy.

    python benchmarks/instability.py [--out logs/instability] [--seeds 1 2 3] [--jobs 2] [overrides ...]
    python scripts/plot_instability.py logs/instability instability.png

    grpo            rewards alone
    sdar            the gated term
    naive hybrid    the raw gap as the weight: sampled reverse KL, no gate
    release hybrid  GRPO+OPSD as the paper's authors run it: a constant gate of 1/2

Each is a run of ``train.py`` with the default configuration and lambda = 0.01 (``algorithm.objective.
distillation_coefficient=...`` as an override changes it for the three). Runs that are finished are reused. The table
gives the means of the last ten iterations over the seeds, each with its smallest and largest; the picture shows every
iteration. It shows what these runs did, and nothing about runs of another size.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent
METHODS: dict[str, list[str]] = {
    "grpo": ["algorithm=grpo"],
    "sdar": ["algorithm=sdar"],
    "naive_hybrid": ["algorithm=sdar", "gate=none", "divergence=sampled_rkl"],
    "release_hybrid": ["algorithm=grpo_opsd_release"],
}
TAGS = ("rollout/success_rate", "train/grad_norm", "rollout/entropy")
LAST = 10


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "instability")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments, overrides = parser.parse_known_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        wanted = product(arguments.seeds, arguments.methods)
        for _ in pool.map(lambda run: _train(*run, out=arguments.out, overrides=overrides), wanted):
            pass
    print(f"\nmean of the last {LAST} iterations over {len(arguments.seeds)} seeds (least to largest)")
    print(f"{'':<16}" + "".join(f"{tag:>32}" for tag in TAGS))
    for method in arguments.methods:
        folders = [arguments.out / f"{method}-seed{seed}" for seed in arguments.seeds]
        cells = []
        for tag in TAGS:
            ends = [statistics.fmean(curve(folder, tag)[1][-LAST:]) for folder in folders]
            cells.append(f"{statistics.fmean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f})")
        print(f"{method:<16}" + "".join(f"{cell:>32}" for cell in cells))


def _train(seed: int, method: str, *, out: Path, overrides: list[str]) -> None:
    folder = out / f"{method}-seed{seed}"
    if (folder / "results.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *METHODS[method],
        f"seed={seed}",
        f"run_dir={folder}",
        "threads=1",
    ]
    # GRPO has no distillation: an override of its coefficient would make it another method.
    own = [text for text in overrides if method != "grpo" or "distillation_coefficient" not in text]
    started = time.monotonic()
    with (out / f"{folder.name}.log").open("w") as log:
        done = subprocess.run([*command, *own], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
    state = "done" if done.returncode == 0 else f"FAILED with exit code {done.returncode}, see {log.name}"
    print(f"{folder.name}: {state} after {(time.monotonic() - started) / 60:.1f} min", flush=True)


def curve(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """Iterations and values of a tag of a run."""
    events = sorted(folder.rglob("events.out.tfevents.*"))
    if not events:
        raise SystemExit(f"error: {folder} holds no TensorBoard events")
    accumulator = EventAccumulator(str(events[0].parent), size_guidance={"scalars": 0})
    accumulator.Reload()
    scalars = accumulator.Scalars(tag)
    return [scalar.step for scalar in scalars], [scalar.value for scalar in scalars]


if __name__ == "__main__":
    main()
