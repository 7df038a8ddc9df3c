"""How far a run is, in a small file that other programs read."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason

from sdar.callbacks.base import IterationCallback
from sdar.errors import UserError
from sdar.learning.datamodule import Iteration
from sdar.learning.logs import tolerated
from sdar.learning.module import SDARModule
from sdar.run.continuing import CONTENTS_KEY, SAVED_KEY, SETTINGS_KEY
from sdar.run.folder import STATE_FILE, write_record

METRICS_KEY, WATCHED_KEY = "sdar_metrics", "sdar_watched"
"""Where the metrics that callbacks monitor lie in a checkpoint, and whether early stopping has seen those of its last
iteration."""


class RunState(IterationCallback):
    """Writes ``state.json`` after every iteration, on the first rank: ``iteration`` of ``of`` (null: without end).

    It also lets early stopping go on where it was: checkpoints hold the metrics it monitors. It must come after the
    callback that plays panels, and before those that monitor them.

    Args:
        directory: folder of the file.
        settings: the run's, which go into its checkpoints: a run that continues from one tells what differs.
        contents: hashes of what the settings name, for the same reason.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any], contents: Mapping[str, str]) -> None:
        self.directory = Path(directory)
        self.settings = dict(settings)
        self.contents = dict(contents)
        self._metrics: dict[str, float] = {}
        self._patience: list[int] = []
        self._watched = True
        self.begun = False
        """Whether an iteration has begun, and so all of a checkpoint been restored."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Put settings, contents, time and metrics into the checkpoint."""
        checkpoint |= {SETTINGS_KEY: self.settings, CONTENTS_KEY: self.contents, SAVED_KEY: time.time()}
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint |= {METRICS_KEY: metrics, WATCHED_KEY: self._watched}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Keep the metrics until training begins, and the patience that the settings say, which Lightning replaces."""
        self._metrics, self._watched = checkpoint.get(METRICS_KEY, {}), checkpoint.get(WATCHED_KEY, True)
        self._patience = [early.patience for early in trainer.early_stopping_callbacks]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show early stopping the metrics it would have seen; a run that it ends, or had ended, learns nothing more."""
        for name, value in self._metrics.items():
            trainer.callback_metrics.setdefault(name, torch.tensor(value))  # a panel may have been played anew
        for early, patience in zip(trainer.early_stopping_callbacks, self._patience, strict=False):
            early.patience = patience
            if not self._watched:
                early.on_train_epoch_end(trainer, pl_module)
            if _has_ended(early):
                trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """What is saved from here on is of an iteration that early stopping has not seen."""
        self._watched, self.begun = False, True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """What is saved before its panel was played came before this, and early stopping comes now.

        UserError: it monitors what there is not.
        """
        self._watched = True
        found = trainer.callback_metrics
        for early in trainer.early_stopping_callbacks:
            if early.strict and early.monitor not in found:
                raise UserError(
                    f"early stopping monitors {early.monitor!r}, which iteration {trainer.current_epoch + 1} does not "
                    f"have; it must be a metric that every iteration has, or strict=false be set{_like(early, found)}"
                )

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:  # noqa: ARG002
        """Replace the file; a reader never sees half of it."""
        if trainer.is_global_zero:
            limit = trainer.max_epochs
            of = limit if limit is not None and limit > 0 else None
            with tolerated(str(self.directory / STATE_FILE)):
                write_record(self.directory / STATE_FILE, {"iteration": iteration.index + 1, "of": of})


def _like(early: EarlyStopping, found: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(early.monitor, found, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _has_ended(early: EarlyStopping) -> bool:
    """Whether early stopping has ended a run; one that may be more patient by now goes on."""
    impatient = early.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED
    return early.wait_count >= early.patience or (early.stopped_epoch > 0 and not impatient)
