"""One line per iteration, with an estimate of the remaining time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from lightning import LightningModule, Trainer
from rich.text import Text

from sdar.callbacks.base import IterationCallback
from sdar.config.fields import AtLeastOne, checked
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule
from sdar.output.terminal import COLUMNS, show

log = logging.getLogger(__name__)


class ProgressLine(IterationCallback):
    """Prints a line of at most 80 columns on the first rank, in colour where it is a terminal.

    It has the iteration, the success rate, what the teacher thinks (the endorsed share of the open tokens, and the mean
    gap in nats) or, where no teacher is scored, the entropy, then the seconds, if there is room, and the estimate.

    Args:
        every_n_iterations: print every n iterations, and after the last.

    The estimate is the mean over the iterations of this process, evaluations between them included, times the remaining
    iterations.
    """

    @checked
    def __init__(self, every_n_iterations: AtLeastOne = 1) -> None:
        self.every_n_iterations = every_n_iterations
        self._started: float | None = None
        self._previous = 0.0
        self._done = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the clock with the first iteration, which excludes the evaluation before it."""
        if self._started is None:
            self._started = self._previous = time.perf_counter()

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Print the line of the iteration."""
        now = time.perf_counter()
        seconds, self._previous = now - self._previous, now
        self._done += 1
        number = iteration.index + 1
        last = number == trainer.max_epochs
        if not trainer.is_global_zero or (number % self.every_n_iterations != 0 and not last):
            return
        assert self._started is not None
        total = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None
        left = None if total is None or last else (now - self._started) / self._done * (total - number)
        metrics = module.report.metrics if module.report is not None else {}
        line = progress_line(metrics, number, total, seconds, left)
        log.info("%s", line.plain)
        show(line)


def progress_line(
    metrics: Mapping[str, float], number: int, total: int | None, seconds: float, left: float | None
) -> Text:
    """The line of an iteration, with styles.

    Args:
        metrics: those of the iteration.
        number: of the iteration, from 1.
        total: number of iterations; None: nobody knows.
        seconds: that it took.
        left: seconds until the end; None: nobody knows.
    """
    counter = f"iteration {number:>{len(str(total or number))}}" + (f"/{total}" if total else "")
    parts = [Text(counter, "bold"), *_figures(metrics)]
    took = Text(f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s", "dim")
    end = [] if left is None else [Text(f"{_rounded(left)} left", "dim")]
    gap = Text("  ")
    line = gap.join([*parts, took, *end])
    return line if len(line.plain) <= COLUMNS else gap.join([*parts, *end])


def _figures(metrics: Mapping[str, float]) -> list[Text]:
    figures = []
    if "rollout/success_rate" in metrics:
        figures.append(_figure("success", f"{metrics['rollout/success_rate']:4.0%}", "bold"))
    if "curriculum/gap_mean" in metrics:
        endorsed, gap = metrics.get("curriculum/endorsed_of_open"), metrics["curriculum/gap_mean"]
        figures.append(_figure("endorsed", "   -" if endorsed is None else f"{endorsed:4.0%}", ""))
        # Blue and yellow: the two that hardly anybody confuses.
        figures.append(_figure("gap", f"{gap:+.3f}", "blue" if gap > 0 else "yellow" if gap < 0 else ""))
    elif "rollout/entropy" in metrics:
        figures.append(_figure("entropy", f"{metrics['rollout/entropy']:.2f}", ""))
    return figures


def _figure(label: str, value: str, style: str) -> Text:
    return Text.assemble((f"{label} ", "dim"), (value, style))


def _rounded(seconds: float) -> str:
    """A duration in one unit: an estimate is no better than that."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 59.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
