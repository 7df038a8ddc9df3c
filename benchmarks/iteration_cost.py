"""What does the teacher cost? Seconds of an SDAR iteration over those of a GRPO iteration without teacher scoring.

    python benchmarks/iteration_cost.py [--iterations 6] [--methods grpo,sdar] [overrides ...]
    python benchmarks/iteration_cost.py --vary optimizer.max_tokens_per_micro_batch=16384,4096   # what a setting costs

All methods, or all values of a setting, run the default configuration with one seed, taking turns iteration by
iteration, so that a machine whose speed drifts is as fast for the one as for the other. The first iteration of each
warms up and is not counted. The ratios are those of the medians to the first one's; the parts show where the difference
comes from. Each method plays its own episodes: a ratio holds what its policy's turns cost as well.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from sdar.run.assembly import assemble, build_trainer
from sdar.run.validate import compose

PARTS = ("generate_s", "environment_s", "score_s", "update_s")


def main() -> None:
    """Time the methods and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=6, help="counted iterations of each method")
    parser.add_argument("--methods", default="grpo,sdar", help="files of configs/algorithm, separated by commas")
    parser.add_argument("--vary", metavar="KEY=A,B", help="values of a setting, instead of methods")
    arguments, overrides = parser.parse_known_args()
    key, _, values = (arguments.vary or f"algorithm={arguments.methods}").partition("=")
    seconds: dict[str, list[dict[str, float]]] = {f"{key}={value}": [] for value in values.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        runs = {method: _Run(method, overrides, Path(folder) / str(n)) for n, method in enumerate(seconds)}
        for iteration in range(arguments.iterations + 1):
            for method, run in runs.items():
                timings = run.iterate()
                if iteration > 0:
                    seconds[method].append(timings)
                    print(f"{method} {iteration}: {sum(timings.values()):.2f} s", flush=True)
    width = max(map(len, seconds))
    print(f"\n{'median s':>{width}}  {'total':>7}  " + "  ".join(f"{part:>13}" for part in PARTS))
    for method, rows in seconds.items():
        parts = "  ".join(f"{statistics.median(row[part] for row in rows):13.2f}" for part in PARTS)
        print(f"{method:>{width}}  {_median(rows):7.2f}  {parts}")
    first, *others = seconds
    print()
    for method in others:
        print(f"{method} / {first}: {_median(seconds[method]) / _median(seconds[first]):.3f}")


class _Run:
    """One method, advanced an iteration at a time by continuing its own checkpoint."""

    def __init__(self, method: str, overrides: list[str], folder: Path) -> None:
        settings = compose([method, "logger=none", f"run_dir={folder}", *overrides])
        if settings.config["threads"] is not None:
            torch.set_num_threads(settings.config["threads"])
        self.config = {**settings.config, "callbacks": {}}
        self.checkpoint: Path | None = None
        self.folder = folder
        self.finished = 0
        self.assembly = assemble(settings)

    def iterate(self) -> dict[str, float]:
        """One more iteration; seconds of its parts."""
        self.finished += 1
        config = {**self.config, "trainer": {**self.config["trainer"], "max_epochs": self.finished}}
        trainer = build_trainer(config, [])
        trainer.fit(
            self.assembly.module, datamodule=self.assembly.datamodule, ckpt_path=self.checkpoint, weights_only=True
        )
        self.checkpoint = self.folder / "last.ckpt"
        trainer.save_checkpoint(self.checkpoint)
        report = self.assembly.module.report
        assert report is not None
        return {part: report.metrics[f"time/{part}"] for part in PARTS}


def _median(rows: list[dict[str, float]]) -> float:
    return statistics.median(sum(row.values()) for row in rows)


if __name__ == "__main__":
    main()
