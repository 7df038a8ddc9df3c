"""Loggers whose failures end no training."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from lightning.pytorch.loggers import Logger

from sdar.errors import UserError
from sdar.learning.logs import tolerated


def harmless(what: str) -> AbstractContextManager[None]:
    """Let every error pass with a warning, the first time for each ``what``; signals and Ctrl-C are none."""
    return tolerated(what, everything=True)


class Harmless(Logger):
    """Stands before a logger of Lightning's in the bases of a class, and guards what the trainer calls.

    ``label``  what a warning calls it
    ``lost``   whether it could not even be opened; nothing more is tried then
    """

    label = "a logger"
    lost = False

    @property
    def experiment(self) -> Any:
        """What the logger writes with; AttributeError, for which the trainer is prepared, where it cannot be opened."""
        found = missing = object()
        if not self.lost:
            with self.guarded():
                found = super().experiment  # type: ignore[misc]
            self.lost = found is missing
        if not self.lost:
            return found
        raise AttributeError(f"{self.label} could not be opened")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Append to the curves."""
        with self.guarded():
            super().log_metrics(dict(metrics), step)  # type: ignore[safe-super]

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """Write hyperparameters."""
        with self.guarded():
            super().log_hyperparams(*arguments, **more)  # type: ignore[safe-super]

    def save(self) -> None:
        """Write what is kept."""
        with self.guarded():
            super().save()

    def finalize(self, status: str = "success") -> None:
        """Flush and close."""
        with self.guarded():
            super().finalize(status)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Let errors pass; of a logger that is lost they were told."""
        with suppress(Exception) if self.lost else harmless(f"the log of {self.label}"):
            yield


def made_harmless(logger: Logger) -> Logger:
    """The logger, guarded from now on where it does not guard itself; it stays one of its own class."""
    if not isinstance(logger, Harmless):
        own = type(logger)
        logger.__class__ = type(own.__name__, (Harmless, own), {"label": own.__name__, "__module__": own.__module__})
    return logger


def need(package: str) -> None:
    """UserError: the package of a logger is not installed. Its extra has the package's name."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"logger={package} needs the package {package}, which is not installed: {_command(package)}")


def _command(extra: str) -> str:
    return f"pip install 'sdar[{extra}]'"
