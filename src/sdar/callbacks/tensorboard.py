"""TensorBoard's files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from sdar.learning.logs import tolerated


class Curves(TensorBoardLogger):
    """Lightning's TensorBoard logger, whose failures end no training.

    Args:
        save_dir, name, version, default_hp_metric: as in Lightning's.
    """

    def __init__(
        self,
        save_dir: str,
        name: str | None = "",
        version: int | str | None = None,
        default_hp_metric: bool = False,
    ) -> None:
        super().__init__(save_dir, name, version, default_hp_metric=default_hp_metric)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append to the curves."""
        with tolerated("the log of TensorBoard"):
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Write the run's hyperparameters, if there are any."""
        with tolerated("the log of TensorBoard"):
            super().save()

    def finalize(self, status: str) -> None:
        """Flush and close."""
        with tolerated("the log of TensorBoard"):
            super().finalize(status)

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """Write hyperparameters."""
        with tolerated("the log of TensorBoard"):
            super().log_hyperparams(*arguments, **more)
