"""Trackio, for which Lightning has no logger."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from sdar.callbacks.board.record import title_of
from sdar.callbacks.loggers.harmless import Harmless, need


class _Trackio(Logger):
    """The logger itself. The run begins with the first metrics: it takes its name and settings when it is made."""

    def __init__(self, run_dir: str, project: str, name: str | None, space_id: str | None) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.project = project
        self.space_id = space_id
        self.title = name
        self._config: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str | None:
        return self.title

    @property
    def experiment(self) -> Any:
        """The run of Trackio; None before it begins."""
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is None:
            trackio = importlib.import_module("trackio")
            self.title = self.title or title_of(self.run_dir)
            given = {} if self.space_id is None else {"space_id": self.space_id}
            self._run = trackio.init(project=self.project, name=self.title, config=self._config, **given)
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        self._config |= vars(params) if isinstance(params, Namespace) else params

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002
        if self._run is not None:
            self._run.finish()


class Trackio(Harmless, _Trackio):
    """A run of Trackio.

    Args:
        run_dir: the run's folder.
        project: of Trackio.
        name: of the run; None: method, environment, seed and what differs.
        space_id: a Space of Hugging Face that shows it; None: this machine alone.

    Raises:
        UserError: the package trackio is not installed.
    """

    label = "Trackio"

    def __init__(
        self, run_dir: str, project: str = "sdar", name: str | None = None, space_id: str | None = None
    ) -> None:
        need("trackio")
        super().__init__(run_dir, project, name, space_id)
