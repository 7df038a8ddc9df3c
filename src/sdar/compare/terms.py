"""The terms that the runs of a comparison must share: panel, initial weights, length and training tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdar.compare.records import FinishedRun
from sdar.config.build import build
from sdar.environments.base import Environment
from sdar.errors import UserError
from sdar.evaluation.panel import content_hash, make_panel

_PANEL, _TASKS = "panel (content hash)", "training tasks"


@dataclass(frozen=True)
class Terms:
    """``panel``: hash of its content; ``training_tasks``: (number, hash) of the tasks that a run draws from."""

    panel: str
    training_tasks: tuple[int, str]


def present_terms(settings: Mapping[str, Any]) -> Terms:
    """The terms of a run of these settings, from the present files and code. No model is needed.

    Raises:
        UserError: the environment cannot be built here.
    """
    environment: Environment = build(settings["environment"], "environment")
    evaluation = settings["evaluation"]
    panel = make_panel(environment, evaluation["split"], evaluation["panel_size"], evaluation["seed"])
    tasks = environment.tasks(environment.splits()[0])
    return Terms(panel.content_hash, (len(tasks), content_hash(tasks)))


def check_present(label: str, run: FinishedRun, now: Terms) -> None:
    """Refuse a finished run whose tasks are not those of a new run.

    Raises:
        UserError: naming the run, its folder and the difference.
    """
    found = _terms(run)
    for term, value in ((_PANEL, now.panel), (_TASKS, now.training_tasks)):
        if term in found:
            remedy = "restore the run's files, move its folder out of logs_dir, or set another logs_dir"
            _check_equal(term, (f"{label} ({run.folder})", found[term]), ("a new run", value), remedy)


def check_comparable(runs: Mapping[str, FinishedRun]) -> None:
    """Refuse finished runs (by label) that differ in their terms.

    Runs of the same settings can do so: files and code change, and a run may end before its last iteration.

    Raises:
        UserError: naming the two runs, their folders and the difference.
    """
    terms = {f"{label} ({run.folder})": _terms(run) for label, run in runs.items()}
    for term in dict.fromkeys(term for found in terms.values() for term in found):
        first, *others = ((run, found[term]) for run, found in terms.items() if term in found)
        for other in others:
            _check_equal(term, first, other, "move the outdated run out of logs_dir, or set another logs_dir")


def _terms(run: FinishedRun) -> dict[str, Any]:
    terms: dict[str, Any] = {
        _PANEL: run.panel,
        "warm start (hash of the initial weights)": run.warm_start,
        "number of iterations": run.iterations,
    }
    return terms if run.training_tasks is None else {**terms, _TASKS: run.training_tasks}


def _check_equal(term: str, first: tuple[str, Any], second: tuple[str, Any], remedy: str) -> None:
    (run, ours), (other, theirs) = first, second
    if ours != theirs:
        raise UserError(
            f"{run} and {other} differ in their {term}: {_shown(ours)} and {_shown(theirs)}; they must share it "
            f"({remedy})"
        )


def _shown(value: Any) -> str:
    """Hashes are shortened."""
    if isinstance(value, tuple):
        return f"{value[0]} ({value[1][:12]})"
    return str(value)[:12]
