"""How far a run is, in a small file that other programs read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from sdar.callbacks.base import IterationCallback
from sdar.learning.datamodule import Iteration
from sdar.learning.logs import tolerated
from sdar.learning.module import SDARModule
from sdar.run.continuing import CONTENTS_KEY, SAVED_KEY, SETTINGS_KEY
from sdar.run.folder import STATE_FILE, write_record


class RunState(IterationCallback):
    """Writes ``state.json`` after every iteration, on the first rank: ``iteration`` of ``of`` (null: without end).

    Args:
        directory: folder of the file.
        settings: the run's, which go into its checkpoints: a run that continues from one tells what differs.
        contents: hashes of what the settings name, for the same reason.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any], contents: Mapping[str, str]) -> None:
        self.directory = Path(directory)
        self.settings = dict(settings)
        self.contents = dict(contents)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Put settings, contents and time into the checkpoint."""
        checkpoint |= {SETTINGS_KEY: self.settings, CONTENTS_KEY: self.contents, SAVED_KEY: time.time()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """A run that early stopping had ended before it was stopped learns nothing more."""
        for early in trainer.early_stopping_callbacks:
            if early.stopped_epoch > 0 or early.wait_count >= early.patience:
                trainer.should_stop = True

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:  # noqa: ARG002
        """Replace the file; a reader never sees half of it."""
        if trainer.is_global_zero:
            limit = trainer.max_epochs
            of = limit if limit is not None and limit > 0 else None
            with tolerated(str(self.directory / STATE_FILE)):
                write_record(self.directory / STATE_FILE, {"iteration": iteration.index + 1, "of": of})
