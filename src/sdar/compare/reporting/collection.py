"""Runs in order: which method and seed each is, and which of them may stand side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdar.compare.records import FinishedRun, read_run
from sdar.compare.reporting.blocks import cut
from sdar.compare.reporting.history import History, read_history
from sdar.compare.shape import is_count, is_text, list_of
from sdar.compare.terms import failed_episodes
from sdar.errors import UserError
from sdar.files import KB, FileError, read_json
from sdar.run.folder import RESULTS_FILE, RUN_FILE, STATE_FILE, read_config, read_record
from sdar.run.identity import run_identity

_SAY_NOTHING = (
    "environment",
    "seed",
    "logs_dir",
    "run_dir",
    "name",
    "threads",
    "ckpt_path",
    "jobs",
    "rank_timeout_minutes",
)
_GROUPS_SAY_NOTHING = ("callbacks", "logger", "hydra", "evaluation")
_MOST_FOLDERS = 1000
_LONGEST = 120
"""Letters of a method's name."""


@dataclass(frozen=True)
class Group:
    """Runs on equal terms: same panel, warm start, number of iterations and training tasks.

    ``methods``      in order; the first is the baseline
    ``seeds``        in order
    ``runs``         (method, seed) -> run; missing ones have no entry
    ``histories``    of the same runs
    ``environment``  its name; empty: not known
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], FinishedRun]
    histories: Mapping[tuple[str, int], History]
    environment: str = ""

    @property
    def name(self) -> str:
        """The methods, a few of them, and the environment."""
        shown = self.methods if len(self.methods) <= 4 else (*self.methods[:3], f"{len(self.methods) - 3} more")
        return " vs ".join(shown) + (f" on {self.environment}" if self.environment else "")

    def of(self, method: str) -> dict[int, History]:
        """Seed -> the history of a method's run."""
        return {seed: self.histories[method, seed] for seed in self.seeds if (method, seed) in self.histories}


@dataclass(frozen=True)
class Collection:
    """All that a report is about.

    ``groups``  the largest first
    ``left``    sentences: folders that are in no group, and why
    """

    groups: tuple[Group, ...]
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Run:
    """A finished run and what tells it from others. ``settings`` are those that its command line named."""

    run: FinishedRun
    seed: int
    identity: str
    settings: tuple[str, ...]
    name: str


@dataclass
class _Found:
    runs: list[_Run] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def group_of(methods: Sequence[str], seeds: Sequence[int], runs: Mapping[tuple[str, int], FinishedRun]) -> Group:
    """The group of a comparison, whose runs are known to be on equal terms."""
    histories = {key: read_history(run) for key, run in runs.items()}
    return Group(tuple(methods), tuple(seeds), runs, histories, _environment(runs))


def collect(places: Iterable[Path]) -> Collection:
    """The runs in these folders: run folders, or folders with run folders somewhere below.

    Runs that differ in nothing but the seed are one method. A folder that cannot be used costs a sentence.

    UserError: there is no finished run in any of them.
    """
    found = _Found()
    for folder in _folders(places, found.left):
        _look(folder, found)
    if not found.runs:
        raise UserError(" ".join(["RUN must be one or more folders of finished runs, got none:", *found.left]))
    by_terms: dict[Any, list[_Run]] = {}
    for run in found.runs:
        by_terms.setdefault(_terms(run.run), []).append(run)
    groups = [_group(runs, found.left) for runs in by_terms.values()]
    return Collection(tuple(sorted(groups, key=lambda group: -len(group.runs))), tuple(found.left))


def _environment(runs: Mapping[tuple[str, int], FinishedRun]) -> str:
    """The name of the environment of runs on equal terms; empty where their settings do not say it."""
    for run in runs.values():
        try:
            name: Any = read_config(run.folder).get("domain")
        except UserError:
            continue
        if is_text(name):
            return cut(name, _LONGEST)
    return ""


def differing_terms(one: Group, other: Group) -> list[str]:
    """In which terms two groups differ, in words."""
    ours, theirs = (_terms(next(iter(group.runs.values()))) for group in (one, other))
    names = ("panel", "warm start", "number of iterations", "training tasks")
    return [name for name, a, b in zip(names, ours, theirs, strict=True) if a != b]


def _terms(run: FinishedRun) -> tuple[Any, ...]:
    return (run.panel, run.warm_start, run.iterations, run.training_tasks)


def _folders(places: Iterable[Path], left: list[str]) -> list[Path]:
    """Run folders, without repetition."""
    found: dict[Path, None] = {}
    for place in places:
        if (place / RUN_FILE).is_file():
            found.setdefault(place.resolve())
            continue
        below = sorted(file.parent.resolve() for file in place.glob(f"**/{RUN_FILE}")) if place.is_dir() else []
        if not below:
            reason = "holds no run" if place.is_dir() else "is no folder"
            left.append(f"{place} {reason}.")
        found.update(dict.fromkeys(below))
    if len(found) > _MOST_FOLDERS:
        raise UserError(f"RUN must be at most {_MOST_FOLDERS} run folders, got {len(found)}")
    return list(found)


def _look(folder: Path, found: _Found) -> None:
    record = read_record(folder / RUN_FILE)
    if record is None or not is_count(record.get("seed")):
        found.left.append(f"{folder}: its {RUN_FILE} is damaged, or is not that of a run.")
        return
    if not (folder / RESULTS_FILE).exists():
        found.left.append(f"{folder} is not finished{_how_far(folder)}.")
        return
    run = read_run(folder, record)
    if run is None:
        found.left.append(f"{folder}: its results are damaged, or it was evaluated and not trained.")
        return
    try:
        settings = read_config(folder)
        identity, name = _identity(settings, record), str(settings.get("name", ""))
    except Exception as error:  # whatever the settings of a stranger hold
        said = str(error) if isinstance(error, UserError) else "they are not those of a run"
        found.left.append(f"{folder}: its settings cannot be read ({said}).")
        return
    command: Any = record.get("command")
    words = tuple(command) if list_of(is_text)(command) else ()
    found.runs.append(_Run(run, record["seed"], identity, tuple(filter(_tells, words)), name))


def _identity(settings: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Equal for the seeds of a method: the same settings, and the same skills in the library's files."""
    text = f"{run_identity({**settings, 'seed': 0})} {record.get('skills_hash')}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _how_far(folder: Path) -> str:
    try:
        state = read_json(folder / STATE_FILE, 10 * KB)
    except FileError:
        return ""
    if isinstance(state, dict) and is_count(state.get("iteration")) and is_count(state.get("of")):
        return f" ({state['iteration']} of {state['of']} iterations)"
    return ""


def _tells(word: str) -> bool:
    """Whether a word of a command line may say what a method is."""
    name, sign, _ = word.lstrip("+~").partition("=")
    group = name.partition(".")[0].partition("/")[0]
    return bool(sign) and not name.startswith("-") and name not in _SAY_NOTHING and group not in _GROUPS_SAY_NOTHING


def _group(runs: Sequence[_Run], left: list[str]) -> Group:
    runs = _comparable(runs, left)
    by_identity: dict[str, dict[int, _Run]] = {}
    for run in sorted(runs, key=lambda run: str(run.run.record.get("started")), reverse=True):
        known = by_identity.setdefault(run.identity, {})
        if run.seed in known:
            left.append(f"{run.run.folder}: {known[run.seed].run.folder} is a newer run of the same settings and seed.")
        else:
            known[run.seed] = run
    order = list(dict.fromkeys(run.identity for run in runs))  # as they were named, not as they were made
    labels = dict(zip(order, _labels([next(iter(by_identity[one].values())) for one in order]), strict=True))
    found = {(labels[one], seed): run.run for one in order for seed, run in sorted(by_identity[one].items())}
    return group_of(list(labels.values()), sorted({seed for _, seed in found}), found)


def _comparable(runs: Sequence[_Run], left: list[str]) -> Sequence[_Run]:
    """Those whose panels were played to their ends, if there are any: "2 of 2" would stand beside "2 of 6"."""
    failures = [failed_episodes(run.run) for run in runs]
    if all(failures):
        return runs
    left += [
        f"{run.run.folder}: {failure}, so it is not compared with others."
        for run, failure in zip(runs, failures, strict=True)
        if failure is not None
    ]
    return [run for run, failure in zip(runs, failures, strict=True) if failure is None]


def _labels(methods: Sequence[_Run]) -> list[str]:
    """Names for methods: the settings that not all of them named; where there is none, the name of their runs."""
    shared = set.intersection(*(set(method.settings) for method in methods)) if len(methods) > 1 else set()
    labels = [
        cut(",".join(_short(word) for word in method.settings if word not in shared) or method.name or "run", _LONGEST)
        for method in methods
    ]
    return [
        f"{label} ({method.identity[:6]})" if labels.count(label) > 1 else label
        for label, method in zip(labels, methods, strict=True)
    ]


def _short(word: str) -> str:
    """``algorithm=grpo`` is called grpo; ``gate.beta=5`` keeps its name, as 5 alone says nothing."""
    name, _, value = word.lstrip("+").partition("=")
    try:
        number = not math.isnan(float(value))
    except ValueError:
        number = False
    return word.lstrip("+") if "." in name or number else value
