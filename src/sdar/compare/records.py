"""Run folders as a comparison reads them: finished runs and their figures, and unfinished runs to continue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sdar.errors import UserError
from sdar.evaluation.statistics import Interval, wilson_interval
from sdar.run.folder import (
    IDENTITY_VERSION,
    LAST_CHECKPOINT,
    RESULTS_FILE,
    RUN_FILE,
    config_hash,
    is_occupied,
    read_config,
    read_record,
    run_identity,
)
from sdar.skills.library import skills_hash

BEFORE = "warm start"
AFTER = "trained"
WITH_SKILLS = ", with skills"


@dataclass(frozen=True)
class Figure:
    """Solved tasks of one agent on the panel. ``n`` excludes errors."""

    successes: int
    n: int

    @property
    def rate(self) -> float:
        """Success rate in [0, 1]."""
        return self.successes / self.n

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the rate, over the tasks and not over seeds."""
        return wilson_interval(self.successes, self.n)


@dataclass(frozen=True)
class FinishedRun:
    """A run with results.

    ``figures``        row of the final table -> solved and n
    ``panel``          hash of the panel's content
    ``warm_start``     hash of the initial weights
    ``iterations``     iterations that the final weights learned from
    ``training_tasks`` (number, hash) of the tasks it drew from; None in records of earlier versions
    ``record``         ``run.json``; ``results`` is ``results.json``
    """

    folder: Path
    figures: Mapping[str, Figure]
    panel: str
    warm_start: str
    iterations: int | None
    training_tasks: tuple[int, str] | None
    record: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """Wall-clock time of training, evaluations included. None in records of earlier versions."""
        value = (self.results.get("training") or {}).get("seconds")
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Found:
    """The newest run folders for one identity.

    ``finished``    the run whose results are used
    ``checkpoint``  of an unfinished run, or of a finished one with fewer iterations; only where no run is finished
    ``running``     folder of a run in progress; only where no run is finished
    ``unreadable``  folders of newer runs whose results cannot be read
    """

    finished: FinishedRun | None = None
    checkpoint: Path | None = None
    running: Path | None = None
    unreadable: tuple[Path, ...] = ()


@dataclass(frozen=True, order=True)
class _Candidate:
    """A run folder, ordered by time."""

    started: str
    folder: Path
    record: Mapping[str, Any] = field(compare=False)
    settings: Mapping[str, Any] = field(compare=False)


def find_runs(logs_dir: str | Path, wanted: Iterable[Mapping[str, Any]]) -> dict[str, Found]:
    """Search all run folders under ``logs_dir``, whoever started them.

    ``wanted`` are the resolved settings of runs. The result has an entry for the identity of each.
    """
    asked = {run_identity(settings): settings for settings in wanted}
    hashes = {identity: config_hash(settings) for identity, settings in asked.items()}
    candidates: dict[str, list[_Candidate]] = {found: [] for found in hashes.values()}
    for file in Path(logs_dir).glob(f"**/{RUN_FILE}"):
        record = read_record(file)
        if record is not None and record.get("config_hash") in candidates:
            settings = _settings(file.parent, record)
            if settings is not None:
                candidate = _Candidate(str(record.get("started", "")), file.parent, record, settings)
                candidates[record["config_hash"]].append(candidate)
    return {identity: _choose(candidates[hashes[identity]], settings) for identity, settings in asked.items()}


def count_older_runs(logs_dir: str | Path) -> int:
    """Runs under ``logs_dir`` of an earlier version, whose hash is another for the same settings."""
    records = (read_record(file) for file in Path(logs_dir).glob(f"**/{RUN_FILE}"))
    return sum(record is not None and record.get("identity_version") != IDENTITY_VERSION for record in records)


def _choose(candidates: Iterable[_Candidate], asked: Mapping[str, Any]) -> Found:
    checkpoint: Path | None = None
    running: Path | None = None
    unreadable: list[Path] = []
    shorter: list[tuple[int, _Candidate]] = []
    for candidate in sorted(candidates, reverse=True):
        folder, saved = candidate.folder, candidate.folder / LAST_CHECKPOINT
        if run_identity(candidate.settings) == run_identity(asked):
            if (folder / RESULTS_FILE).exists():
                run = read_run(folder, candidate.record)
                if run is not None:
                    return Found(finished=run, unreadable=tuple(unreadable))
                unreadable.append(folder)
            elif is_occupied(folder):
                running = running or folder
            elif saved.exists():
                checkpoint = checkpoint or saved
        elif saved.exists() and _is_shorter(candidate.settings, asked):
            run = read_run(folder, candidate.record)
            if run is not None:
                shorter.append((run.iterations or 0, candidate))
    if checkpoint is None and shorter:
        checkpoint = max(shorter)[1].folder / LAST_CHECKPOINT
    return Found(checkpoint=checkpoint, running=running, unreadable=tuple(unreadable))


def _is_shorter(settings: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a run has fewer iterations than asked for, and is otherwise the same."""
    ours, theirs = settings["trainer"].get("max_epochs"), asked["trainer"].get("max_epochs")
    if ours is None or theirs is None or not 0 <= ours < theirs:
        return False
    prolonged = {**settings, "trainer": {**settings["trainer"], "max_epochs": theirs}}
    return run_identity(prolonged) == run_identity(asked)


def _settings(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of a run. None for an evaluation, for skills that have changed, or if they cannot be read."""
    try:
        settings = read_config(folder)
        run_identity(settings)
        # Records of earlier versions have no hash of the skills.
        same_skills = record.get("skills_hash") in (None, skills_hash(settings))
        same = settings["train"] and config_hash(settings) == record["config_hash"] and same_skills
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, yaml.YAMLError):
        return None
    return settings if same else None


def read_run(folder: Path, record: Mapping[str, Any]) -> FinishedRun | None:
    """The finished run in a folder. None if its results cannot be read or lack what a comparison needs."""
    results = read_record(folder / RESULTS_FILE)
    if results is None:
        return None
    try:
        figures = {
            str(row["name"]): Figure(int(row["successes"]), int(row["n"])) for row in results["results"] if row["n"]
        }
        for figure in figures.values():
            figure.interval  # noqa: B018 - raises ValueError for impossible counts
        training = results.get("training")
        # Records of earlier versions have only the number of iterations that was asked for.
        iterations = training["iterations"] if training else read_config(folder)["trainer"].get("max_epochs")
        run = FinishedRun(
            folder=folder,
            figures=figures,
            panel=str(results["panel"]["content_hash"]),
            warm_start=str(results["model"]["initial_weights"]),
            iterations=None if iterations is None else int(iterations),
            training_tasks=None if training is None else (int(training["tasks"]), str(training["content_hash"])),
            record=record,
            results=results,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return run if {BEFORE, AFTER} <= {str(row["name"]) for row in results["results"]} else None
