"""Weights & Biases."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import WandbLogger

from sdar.callbacks.board.record import title_of
from sdar.callbacks.loggers.harmless import Harmless, need


class Wandb(Harmless, WandbLogger):
    """Lightning's logger of Weights & Biases.

    Args:
        save_dir: the run's folder.
        project, offline: as in Lightning's.
        name: of the run; None: method, environment, seed and what differs.
        id: of the run at W&B, to go on with one.

    Raises:
        UserError: the package wandb is not installed.
    """

    label = "Weights & Biases"

    def __init__(
        self,
        save_dir: str,
        project: str = "sdar",
        name: str | None = None,
        offline: bool = False,
        id: str | None = None,
    ) -> None:
        need("wandb")
        super().__init__(name=name, save_dir=save_dir, offline=offline, id=id, project=project)

    @property
    def experiment(self) -> Any:
        """The run of W&B, named when it begins: before, its folder says nothing of it."""
        if self._name is None:
            self._wandb_init["name"] = self._name = title_of(self.save_dir)
        return super().experiment
