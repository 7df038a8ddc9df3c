"""Does a long run keep what it no longer needs? Resident memory after every iteration, and its slope.

    python benchmarks/memory_growth.py [--iterations 500] [overrides...]

A run of small iterations in this process, with every callback and logger of the default but the panel; each iteration
opens its environments anew. The slope is that of a straight line through the second half, in kB per iteration.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

import sdar
from sdar.run.assembly import build_trainer

SMALL = (
    "experiment=smoke",
    "environment.num_tasks=[60,6,6]",
    "environment.max_turns=3",
    "rollout.sampling.max_response_tokens=8",
    "callbacks.progress=null",
    "threads=1",
)


class Memory(Callback):
    """Resident kB of this process after every iteration."""

    def __init__(self) -> None:
        self.kilobytes: list[float] = []

    def on_train_epoch_end(self, *_: Any) -> None:
        """Read it from the operating system (Linux)."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        self.kilobytes.append(float(status.partition("VmRSS:")[2].split()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=500)
    arguments, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = sdar.compose([*SMALL, f"trainer.max_epochs={arguments.iterations}", f"run_dir={folder}", *overrides])
        assembly, memory = sdar.assemble(settings), Memory()
        trainer: Any = build_trainer(settings.config, [memory])
        trainer.fit(assembly.module, datamodule=assembly.datamodule)
    half = memory.kilobytes[arguments.iterations // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope
    for iteration in range(0, arguments.iterations, max(1, arguments.iterations // 10)):
        print(f"after {iteration + 1:>5} iterations  {memory.kilobytes[iteration] / 1024:8.1f} MiB")
    print(f"after {arguments.iterations:>5} iterations  {memory.kilobytes[-1] / 1024:8.1f} MiB")
    print(f"slope of the second half: {slope:.1f} kB per iteration")


if __name__ == "__main__":
    main()
