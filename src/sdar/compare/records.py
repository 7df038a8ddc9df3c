"""Run folders as a comparison reads them: finished runs and their figures, and unfinished runs to continue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sdar.compare.shape import Shape, is_bool, is_count, is_number, is_text, list_of, mapping_of, maybe, record_of
from sdar.errors import UserError
from sdar.evaluation.statistics import Interval, wilson_interval
from sdar.run.folder import (
    RESULTS_FILE,
    RUN_FILE,
    checkpoints_of,
    is_occupied,
    read_config,
    read_record,
)
from sdar.run.identity import IDENTITY_VERSION, config_hash, run_identity
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


_UNREADABLE = (
    *(UserError, OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, OverflowError),
    *(RecursionError, yaml.YAMLError),
)
"""What the settings of a run raise that are damaged, or whose files are gone."""

_RUN = record_of(
    started=maybe(is_text),
    git=maybe(record_of(revision=maybe(is_text), changed=maybe(is_bool))),
    versions=maybe(mapping_of(maybe(is_text))),
)
_COUNTS: dict[str, Shape] = {"name": is_text, "n": is_count, "successes": is_count}
_RESULTS = record_of(
    panel=record_of(content_hash=is_text),
    model=record_of(initial_weights=is_text),
    results=list_of(record_of(**_COUNTS, errors=maybe(is_count))),
    training=maybe(record_of(iterations=is_count, tasks=is_count, content_hash=is_text, seconds=maybe(is_number))),
    evaluations=maybe(list_of(record_of(**_COUNTS, iterations=maybe(is_count), seconds=maybe(is_number)))),
)
"""What a comparison reads of ``run.json`` and ``results.json``."""


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
        alike = None if record is None else candidates.get(str(record.get("config_hash")))
        if record is not None and alike is not None:
            settings = _settings(file.parent, record)
            if settings is not None:
                alike.append(_Candidate(str(record.get("started", "")), file.parent, record, settings))
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
        folder = candidate.folder
        if run_identity(candidate.settings) == run_identity(asked):
            if (folder / RESULTS_FILE).exists():
                run = read_run(folder, candidate.record)
                if run is None:
                    unreadable.append(folder)
                elif _is_whole(run, asked):
                    return Found(finished=run, unreadable=tuple(unreadable))
                else:
                    checkpoint = checkpoint or _newest(folder)
            elif is_occupied(folder):
                running = running or folder
            else:
                checkpoint = checkpoint or _newest(folder)
        elif checkpoints_of(folder) and _is_shorter(candidate.settings, asked):
            run = read_run(folder, candidate.record)
            if run is not None:
                shorter.append((run.iterations or 0, candidate))
    if checkpoint is None and shorter:
        checkpoint = _newest(max(shorter)[1].folder)
    return Found(checkpoint=checkpoint, running=running, unreadable=tuple(unreadable))


def _is_whole(run: FinishedRun, asked: Mapping[str, Any]) -> bool:
    """Whether a run went to its last iteration: callbacks, which may end it before, are no part of its identity."""
    iterations, trainer = run.iterations, asked["trainer"]
    return iterations is None or trainer.get("max_time") is not None or iterations == trainer.get("max_epochs")


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint of a run that is whole."""
    from sdar.policy.checkpoint_file import damage  # slow to import, and most comparisons continue nothing

    return next((file for file in checkpoints_of(folder) if damage(file) is None), None)


def _is_shorter(settings: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a run has fewer iterations than asked for, and is otherwise the same."""
    ours, theirs = settings["trainer"].get("max_epochs"), asked["trainer"].get("max_epochs")
    if not (is_count(ours) and is_count(theirs) and ours < theirs):
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
    except _UNREADABLE:
        return None
    return settings if same else None


def read_run(folder: Path, record: Mapping[str, Any]) -> FinishedRun | None:
    """The finished run in a folder. None if its results or its ``record`` lack what a comparison needs."""
    results = read_record(folder / RESULTS_FILE)
    if results is None or not (_RUN(record) and _RESULTS(results)):
        return None
    rows, training = results["results"], results.get("training")
    if any(row["successes"] > row["n"] for row in [*rows, *(results.get("evaluations") or ())]):
        return None
    played = {row["name"] for row in rows if row["n"] or row.get("errors")}
    if not {BEFORE, AFTER} <= played:
        return None
    iterations = training["iterations"] if training else _iterations_asked(folder)
    return FinishedRun(
        folder=folder,
        figures={row["name"]: Figure(row["successes"], row["n"]) for row in rows if row["n"]},
        panel=results["panel"]["content_hash"],
        warm_start=results["model"]["initial_weights"],
        iterations=iterations,
        training_tasks=None if training is None else (training["tasks"], training["content_hash"]),
        record=record,
        results=results,
    )


def _iterations_asked(folder: Path) -> int | None:
    """Records of earlier versions have only the number of iterations that was asked for."""
    try:
        asked = read_config(folder)["trainer"].get("max_epochs")
    except _UNREADABLE:
        return None
    return asked if is_count(asked) else None
