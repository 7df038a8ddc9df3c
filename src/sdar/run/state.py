"""How far a run is, in a small file that other programs read."""

from __future__ import annotations

from pathlib import Path

from lightning import Trainer

from sdar.callbacks.base import IterationCallback
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule
from sdar.run.folder import STATE_FILE, write_record


class RunState(IterationCallback):
    """Writes ``state.json`` after every iteration, on the first rank: ``iteration`` of ``of`` (null: without end).

    Args:
        directory: folder of the file.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:  # noqa: ARG002
        """Replace the file; a reader never sees half of it."""
        if trainer.is_global_zero:
            limit = trainer.max_epochs
            of = limit if limit is not None and limit > 0 else None
            write_record(self.directory / STATE_FILE, {"iteration": iteration.index + 1, "of": of})
