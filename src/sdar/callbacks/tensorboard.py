"""TensorBoard's files of a run."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary

from sdar.callbacks.board.glance import Glance
from sdar.callbacks.loggers.harmless import Harmless

_MARK = "val/success_rate"
"""The figure beside which the baselines are drawn."""


class Curves(Harmless, TensorBoardLogger):
    """Lightning's TensorBoard logger, whose failures end no training.

    Args:
        save_dir, name, version, default_hp_metric: as in Lightning's.

    Attributes:
        baselines: tag -> value, of agents that do not learn; they are logged with every panel, so that each is a line.
        glance: what is shown first; a run that is continued lets it hold the last panel.
    """

    label = "TensorBoard"

    def __init__(
        self,
        save_dir: str,
        name: str | None = "",
        version: int | str | None = None,
        default_hp_metric: bool = False,
    ) -> None:
        super().__init__(save_dir, name, version, default_hp_metric=default_hp_metric)
        self.baselines: dict[str, float] = {}
        self.glance = Glance()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append to the curves, and what is shown first once more."""
        lines = self.baselines if _MARK in metrics else {}
        first = {} if step is None else self.glance.at(metrics, step)
        super().log_metrics({**metrics, **lines, **first}, step)

    @rank_zero_only
    def write(self, summary: Summary, step: int = 0) -> None:
        """Write a summary of any kind: a text, a histogram, a layout."""
        with self.guarded():
            self.experiment._get_file_writer().add_summary(summary, step)
