"""What is written on the side must not end a training run: a full disk costs the log, not the weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lightning.pytorch.loggers import Logger

from sdar.errors import system_reason, words_of

log = logging.getLogger(__name__)
_told: set[str] = set()


@contextmanager
def tolerated(what: str, *, everything: bool = False) -> Iterator[None]:
    """Let an error of the operating system pass with a warning, the first time for each ``what``.

    Also one that a library has wrapped in an error of its own; with ``everything`` any error at all, of which signals
    and Ctrl-C are none.
    """
    try:
        yield
    except Exception as error:
        reason = system_reason(error)
        if reason is None:
            if not everything:
                raise
            reason = f"{type(error).__name__}: {' '.join(words_of(error).split())[:300]}"
        if what not in _told:
            _told.add(what)
            log.warning("%s cannot be written (%s); training goes on without it", what, reason)


def log_metrics(loggers: Sequence[Logger], metrics: Mapping[str, float], step: int) -> None:
    """Hand metrics to every logger."""
    for logger in loggers:
        with tolerated(f"the log of {type(logger).__name__}"):
            logger.log_metrics(dict(metrics), step=step)
