"""Does the default learn? Every warm start x RL seed x method, each a run of ``train.py``, and one table.

    python benchmarks/first_light.py [--out logs/first_light] [--jobs 2] [overrides ...]

The warm starts are shipped; ``python -m sdar.warm_start seed=SEED out=FOLDER`` makes them (about 20 minutes on a core).

Runs that are finished are reused, so an interrupted series goes on where it stopped. The table gives, per method, the
mean rise of the success rate of the student alone (trained minus warm start, on the unseen panel) with Student's t
interval over the runs, and the paired difference of the methods: same warm start, same seed, same tasks.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from reused_runs import ROOT, make

from sdar.evaluation.statistics import Estimate, mean_over_runs, paired_difference

WARM_STARTS = ("alfworld", "alfworld_seed1", "alfworld_seed2")
SEEDS = (1, 2)
METHODS = ("sdar", "grpo")


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "first_light")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--warm-starts", nargs="+", default=list(WARM_STARTS))
    arguments, overrides = parser.parse_known_args()
    make(
        {
            _folder(arguments.out, warm_start, seed, method): [
                f"algorithm={method}", f"model.path={warm_start}", f"seed={seed}", *overrides
            ]
            for warm_start, seed, method in product(arguments.warm_starts, arguments.seeds, arguments.methods)
        },
        arguments.jobs,
    )  # fmt: skip
    _report(arguments)


def _folder(out: Path, warm_start: str, seed: int, method: str) -> Path:
    return out / f"{method}-{warm_start}-seed{seed}"


def _rates(folder: Path) -> dict[str, float]:
    record = json.loads((folder / "results.json").read_text())
    return {result["name"]: result["success_rate"] for result in record["results"]}


def _report(arguments: argparse.Namespace) -> None:
    pairs = list(product(arguments.warm_starts, arguments.seeds))
    trained: dict[str, list[float]] = {}
    for method in arguments.methods:
        print(f"\n{method}: success on the panel, student alone (with skills)")
        rises = []
        trained[method] = []
        for warm_start, seed in pairs:
            rates = _rates(_folder(arguments.out, warm_start, seed, method))
            before, after = rates["warm start"], rates["trained"]
            rises.append(after - before)
            trained[method].append(after)
            helped = f"({rates['warm start, with skills']:.1%} -> {rates['trained, with skills']:.1%})"
            print(f"  {warm_start} seed {seed}: {before:.1%} -> {after:.1%}  {helped}")
        print(f"  rise: {_points(mean_over_runs(rises))}")
    first, *others = arguments.methods
    for other in others:
        print(f"\n{first} - {other}, paired: {_points(paired_difference(trained[first], trained[other]))}")


def _points(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{100 * estimate.mean:+.1f} points (n = {estimate.n}, 95 % interval {100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    main()
