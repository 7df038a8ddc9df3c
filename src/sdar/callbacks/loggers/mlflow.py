"""MLflow."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from sdar.callbacks.board.record import title_of
from sdar.callbacks.loggers.harmless import Harmless, need
from sdar.errors import UserError


class MLflow(Harmless, MLFlowLogger):
    """Lightning's logger of MLflow.

    Args:
        run_dir: the run's folder.
        save_dir: folder of MLflow's files where there is no server.
        experiment_name: as in Lightning's.
        run_name: None: method, environment, seed and what differs.
        tracking_uri: of the server; None: what ``MLFLOW_TRACKING_URI`` says, else ``save_dir``.
        run_id: of the run, to go on with one.

    Raises:
        UserError: the package mlflow is not installed, or takes no such address.
    """

    label = "MLflow"

    def __init__(
        self,
        run_dir: str,
        save_dir: str,
        experiment_name: str = "sdar",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        run_id: str | None = None,
    ) -> None:
        need("mlflow")
        server = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if server is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # its newer versions write no files unasked
        try:
            super().__init__(
                experiment_name=experiment_name,
                run_name=run_name,
                tracking_uri=server,
                save_dir=save_dir,
                run_id=run_id,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"logger=mlflow cannot be opened at {server or save_dir}: {reason}") from error
        self._run_dir = run_dir

    @property
    def experiment(self) -> Any:
        """MLflow's client; its run is named when it begins: before, the run's folder says nothing of it."""
        if self._run_name is None:
            self._run_name = title_of(self._run_dir)
        return super().experiment
