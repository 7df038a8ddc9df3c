"""Agents that do not learn, as level lines beside the curves of the panel."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lightning.pytorch.loggers import Logger

from sdar.callbacks.tensorboard import Curves
from sdar.evaluation.result import EvaluationResult


def tell_baselines(loggers: Iterable[Logger], results: Iterable[EvaluationResult]) -> None:
    """Let TensorBoard draw success rates at every panel that follows; to be called before the trainer fits.

    The tag of an agent is ``val/baseline/<name>``. One without an episode is left out.
    """
    rates = {_tag(result.name): result.success_rate for result in results if result.n}
    for logger in loggers:
        if isinstance(logger, Curves):
            logger.baselines |= rates


def _tag(name: str) -> str:
    return "val/baseline/" + re.sub(r"\W+", "_", name).strip("_").lower()
