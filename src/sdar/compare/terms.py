"""The terms that the runs of a comparison must share: panel, initial weights, length and training tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.compare.records import AFTER, BEFORE, FinishedRun
from sdar.config.build import build
from sdar.environments.base import Environment, training_tasks
from sdar.environments.task_list import content_hash
from sdar.errors import UserError
from sdar.evaluation.panel import make_panel
from sdar.run.folder import RESULTS_FILE

PANEL = "panel (content hash)"
TASKS = "training tasks"

Terms = Mapping[str, Any]
"""What runs must share -> its value. Tasks are (number, hash)."""


def present_terms(settings: Mapping[str, Any]) -> Terms:
    """Panel and training tasks of a new run of these settings, from the present files and code, without a model.

    UserError: the environment cannot be built here.
    """
    environment: Environment = build(settings["environment"], "environment")
    evaluation = settings["evaluation"]
    panel = make_panel(environment, evaluation["split"], evaluation["panel_size"], evaluation["seed"])
    tasks = training_tasks(environment)
    return {PANEL: panel.content_hash, TASKS: (len(tasks), content_hash(tasks))}


def check_present(label: str, run: FinishedRun, now: Terms) -> None:
    """Refuse a finished run whose terms are not those of a new run. UserError names run, folder and difference."""
    remedy = "restore the run's files, move its folder out of logs_dir, or set another logs_dir"
    _check_equal({f"{label} ({run.folder})": _terms(run), "a new run": now}, remedy)


def check_comparable(runs: Mapping[str, FinishedRun]) -> None:
    """Refuse finished runs (by label) that differ in their terms.

    Runs of the same settings can do so: files and code change, and a run may end before its last iteration. UserError
    names the two runs, their folders and the difference.
    """
    remedy = "move the outdated run out of logs_dir, or set another logs_dir"
    _check_equal({f"{label} ({run.folder})": _terms(run) for label, run in runs.items()}, remedy)


def unsoundness(label: str, run: FinishedRun) -> str | None:
    """Why a finished run cannot be compared, in a sentence; None: it can.

    Episodes that ended by errors are in no figure, so "2 of 2" would stand beside "2 of 6".
    """
    failure = failed_episodes(run)
    return failure and (
        f"{label} ({run.folder}): {failure}, so it cannot be compared; remove {run.folder / RESULTS_FILE} to have it "
        "played again, or move the run out of logs_dir"
    )


def failed_episodes(run: FinishedRun) -> str | None:
    """How many episodes of a compared panel ended by errors, in words; None: none did."""
    for row in run.results["results"]:
        failed = int(row.get("errors") or 0)
        if failed and str(row["name"]).startswith((BEFORE, AFTER)):
            return f"{failed} of {int(row['n']) + failed} episodes of {row['name']!r} ended by errors"
    return None


def _terms(run: FinishedRun) -> Terms:
    terms = {
        PANEL: run.panel,
        "warm start (hash of the initial weights)": run.warm_start,
        "number of iterations": run.iterations,
    }
    return terms if run.training_tasks is None else {**terms, TASKS: run.training_tasks}


def _check_equal(terms: Mapping[str, Terms], remedy: str) -> None:
    """Compare every term among the runs that record it."""
    for term in dict.fromkeys(term for found in terms.values() for term in found):
        (first, ours), *others = ((run, found[term]) for run, found in terms.items() if term in found)
        for other, theirs in others:
            if ours != theirs:
                raise UserError(
                    f"{first} and {other} differ in their {term}: {_shown(ours)} and {_shown(theirs)}; they must share "
                    f"it ({remedy})"
                )


def _shown(value: Any) -> str:
    """Hashes are shortened."""
    return f"{value[0]} ({value[1][:12]})" if isinstance(value, tuple) else str(value)[:12]
