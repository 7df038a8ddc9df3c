"""What a run made now would be trained and judged on, held against runs that are to be reused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdar.compare.records import FinishedRun
from sdar.config.build import build
from sdar.environments.base import Environment
from sdar.errors import UserError
from sdar.evaluation.panel import content_hash, make_panel


@dataclass(frozen=True)
class Terms:
    """``panel``: hash of the panel's content; ``training_tasks``: (number, hash) of the tasks that a run draws from."""

    panel: str
    training_tasks: tuple[int, str]


def present_terms(settings: Mapping[str, Any]) -> Terms:
    """The terms of a run of these settings, from the files and the code as they are now; no model is needed.

    Raises:
        UserError: the environment cannot be built here.
    """
    environment: Environment = build(settings["environment"], "environment")
    evaluation = settings["evaluation"]
    panel = make_panel(environment, evaluation["split"], evaluation["panel_size"], evaluation["seed"])
    tasks = environment.tasks(environment.splits()[0])
    return Terms(panel.content_hash, (len(tasks), content_hash(tasks)))


def check_present(label: str, run: FinishedRun, now: Terms) -> None:
    """Refuse a finished run on other tasks than a run made now would have, before such runs are made.

    Raises:
        UserError: naming the run, its folder and the difference.
    """
    for what, then, present in (
        ("panel (content hash)", run.panel, now.panel),
        ("training tasks", run.training_tasks, now.training_tasks),
    ):
        if then is not None and then != present:
            raise UserError(
                f"{label} ({run.folder}) and a run made now differ in their {what}: {_shown(then)} and "
                f"{_shown(present)}; allowed are runs that share it (give the run its files back, move it away from "
                "its folder, or give a new logs_dir)"
            )


def _shown(value: str | tuple[int, str]) -> str:
    return value[:12] if isinstance(value, str) else f"{value[0]} ({value[1][:12]})"
