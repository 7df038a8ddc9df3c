"""Runs as their folders tell them: which are finished, which can be continued, what they found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sdar.errors import UserError
from sdar.evaluation.statistics import Interval, wilson_interval
from sdar.run.folder import (
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
    """Solved tasks of one agent on the panel; errors are not in ``n``."""

    successes: int
    n: int

    @property
    def rate(self) -> float:
        """Success rate in [0, 1]."""
        return self.successes / self.n

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the rate: of these tasks, not of other seeds."""
        return wilson_interval(self.successes, self.n)


@dataclass(frozen=True)
class FinishedRun:
    """A run with results.

    ``figures``        agent as the final table names it -> solved and n
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
        """Wall-clock time of training, evaluations in between included; None in records of earlier versions."""
        value = (self.results.get("training") or {}).get("seconds")
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Found:
    """What lies under a folder of runs for one identity; the newest of each kind.

    ``finished``    its results stand for the run
    ``checkpoint``  where an unfinished run stopped, or the end of a finished one that was to have fewer iterations;
                    only where no run is finished
    ``running``     folder of a run that a process is busy with now; only where no run is finished
    ``unreadable``  folders of such runs whose results cannot be read
    """

    finished: FinishedRun | None = None
    checkpoint: Path | None = None
    running: Path | None = None
    unreadable: tuple[Path, ...] = ()


def find_runs(logs_dir: str | Path, wanted: Iterable[Mapping[str, Any]]) -> dict[str, Found]:
    """Look through all run folders under ``logs_dir``, whoever started them.

    ``wanted`` are the resolved settings of runs; the answer has an entry for the identity of each.
    """
    by_hash: dict[str, dict[str, Mapping[str, Any]]] = {}
    for asked in wanted:
        by_hash.setdefault(config_hash(asked), {})[run_identity(asked)] = asked
    folders: dict[str, list[_Candidate]] = {identity: [] for some in by_hash.values() for identity in some}
    shorter: dict[str, list[_Candidate]] = {identity: [] for identity in folders}
    for file in Path(logs_dir).glob(f"**/{RUN_FILE}"):
        record = read_record(file)
        if record is None or record.get("config_hash") not in by_hash:
            continue
        settings = _settings(file.parent, record)
        if settings is None:
            continue
        candidate = _Candidate(str(record.get("started", "")), file.parent, record)
        for identity, asked in by_hash[record["config_hash"]].items():
            if run_identity(settings) == identity:
                folders[identity].append(candidate)
            elif _is_shorter(settings, asked):
                shorter[identity].append(candidate)
    return {identity: _newest(found, shorter[identity]) for identity, found in folders.items()}


@dataclass(frozen=True, order=True)
class _Candidate:
    started: str
    folder: Path
    record: Mapping[str, Any] = field(compare=False)


def _newest(found: Iterable[_Candidate], shorter: Iterable[_Candidate]) -> Found:
    checkpoint: Path | None = None
    running: Path | None = None
    unreadable: list[Path] = []
    for candidate in sorted(found, reverse=True):
        folder = candidate.folder
        if (folder / RESULTS_FILE).exists():
            run = read_run(folder, candidate.record)
            if run is not None:
                return Found(finished=run, unreadable=tuple(unreadable))
            unreadable.append(folder)
        elif is_occupied(folder):
            running = running or folder
        elif checkpoint is None and (folder / LAST_CHECKPOINT).exists():
            checkpoint = folder / LAST_CHECKPOINT
    return Found(checkpoint=checkpoint or _longest(shorter), running=running, unreadable=tuple(unreadable))


def _longest(shorter: Iterable[_Candidate]) -> Path | None:
    """The checkpoint of the finished run with most iterations behind it, the newest of several."""
    runs = [(read_run(c.folder, c.record), c) for c in shorter if (c.folder / LAST_CHECKPOINT).exists()]
    finished = [(run.iterations or 0, candidate) for run, candidate in runs if run is not None]
    return max(finished)[1].folder / LAST_CHECKPOINT if finished else None


def _is_shorter(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a run differs from the one wanted in that it was to have fewer iterations, and in nothing else."""
    ours, theirs = settings["trainer"].get("max_epochs"), wanted["trainer"].get("max_epochs")
    if ours is None or theirs is None or not 0 <= ours < theirs:
        return False
    prolonged = {**settings, "trainer": {**settings["trainer"], "max_epochs": theirs}}
    return run_identity(prolonged) == run_identity(wanted)


def _settings(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the run in a folder; None for an evaluation, other skills than now, or what cannot be read."""
    try:
        settings = read_config(folder)
        if not settings["train"] or config_hash(settings) != record["config_hash"]:
            return None
        # Records of earlier versions do not tell what the skills said.
        if record.get("skills_hash") not in (None, skills_hash(settings)):
            return None
        run_identity(settings)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, yaml.YAMLError):
        return None
    return settings


def read_run(folder: Path, record: Mapping[str, Any]) -> FinishedRun | None:
    """The finished run in a folder; None where its results cannot be read or lack what a comparison needs."""
    results = read_record(folder / RESULTS_FILE)
    if results is None:
        return None
    try:
        figures = {
            str(row["name"]): Figure(int(row["successes"]), int(row["n"])) for row in results["results"] if row["n"]
        }
        training = results.get("training")
        run = FinishedRun(
            folder=folder,
            figures=figures,
            panel=str(results["panel"]["content_hash"]),
            warm_start=str(results["model"]["initial_weights"]),
            iterations=_iterations(folder, training),
            training_tasks=None if training is None else (int(training["tasks"]), str(training["content_hash"])),
            record=record,
            results=results,
        )
        for figure in figures.values():
            figure.interval  # noqa: B018 - refuses counts that cannot be
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return run if {BEFORE, AFTER} <= figures.keys() else None


def _iterations(folder: Path, training: Mapping[str, Any] | None) -> int | None:
    """Iterations done, as recorded; records of earlier versions have only the number that was asked for."""
    if training is not None:
        return int(training["iterations"])
    asked = read_config(folder)["trainer"].get("max_epochs")
    return None if asked is None else int(asked)
