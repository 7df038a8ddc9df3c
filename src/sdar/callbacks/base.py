"""The base class of callbacks that read an iteration after its update."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from sdar.learning.datamodule import Iteration
from sdar.learning.logs import tolerated
from sdar.learning.module import SDARModule
from sdar.output.printable import printable

log = logging.getLogger(__name__)


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


def append_lines(trainer: Trainer, directory: str | Path | None, name: str, records: Iterable[dict[str, Any]]) -> None:
    """Append JSON objects to a file, one per line; without a directory it is in the trainer's ``default_root_dir``.

    A file that cannot be written is told of once and does not end training.
    """
    folder = Path(trainer.default_root_dir if directory is None else directory)
    with tolerated(str(folder / name)):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def say(text: str) -> None:
    """Print a line that belongs to the run's log, too."""
    log.info("%s", text)
    print(printable(text), flush=True)
