"""The base class of callbacks that read an iteration after its update."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule


class IterationCallback(Callback):
    """A callback with one hook, :meth:`on_iteration`. ``module.report`` has metrics, rows and log-probs."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Iteration,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Lightning's batch is the iteration."""
        assert isinstance(pl_module, SDARModule)
        self.on_iteration(trainer, pl_module, batch)

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Called on every rank after the iteration's update."""
