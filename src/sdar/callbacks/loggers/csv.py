"""The metrics of a run as a table in its folder."""

from __future__ import annotations

from lightning.pytorch.loggers import CSVLogger

from sdar.callbacks.loggers.harmless import Harmless
from sdar.config.fields import AtLeastOne, checked


class CSV(Harmless, CSVLogger):
    """``metrics.csv``, a column per tag and ``step``, and ``hparams.yaml``.

    An iteration and a panel have a row each; what a row does not have is empty.

    Args:
        save_dir, name, version: as in Lightning's; the files are in ``save_dir/name/version``.
        flush_logs_every_n_steps: iterations after which the file is written; it is written in the end, too.
    """

    label = "CSV"

    @checked
    def __init__(
        self,
        save_dir: str,
        name: str = "",
        version: int | str | None = None,
        flush_logs_every_n_steps: AtLeastOne = 1,
    ) -> None:
        super().__init__(save_dir, name, version, flush_logs_every_n_steps=flush_logs_every_n_steps)
