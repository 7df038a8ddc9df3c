"""One line per iteration, with an estimate of the remaining time."""

from __future__ import annotations

import time

from lightning import LightningModule, Trainer

from sdar.callbacks.base import IterationCallback, say
from sdar.callbacks.duration import duration
from sdar.config.fields import AtLeastOne, checked
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule

_METRICS = {
    "rollout/success_rate": ("success", "{:5.1%}"),
    "curriculum/strongly_gated_fraction": ("strongly gated", "{:5.1%}"),
    "rollout/entropy": ("entropy", "{:.2f}"),
}


class ProgressLine(IterationCallback):
    """Prints iteration, success rate, strongly gated fraction, seconds and the estimate, on the first rank.

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
        say(self._line(trainer, module, number, seconds, now - self._started))

    def _line(self, trainer: Trainer, module: SDARModule, number: int, seconds: float, elapsed: float) -> str:
        total = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None
        parts = [f"iteration {number:>{len(str(total or number))}}" + (f"/{total}" if total else "")]
        metrics = module.report.metrics if module.report is not None else {}
        parts += [f"{label} {form.format(metrics[tag])}" for tag, (label, form) in _METRICS.items() if tag in metrics]
        parts.append(f"{seconds:.1f} s")
        if total is not None and total > number:
            parts.append(f"about {duration(elapsed / self._done * (total - number))} left")
        return "  ".join(parts)
