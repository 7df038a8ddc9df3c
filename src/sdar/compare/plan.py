"""The runs of a comparison: composed and validated, every pair on equal terms."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.compare.records import FinishedRun
from sdar.compare.request import Request
from sdar.config.command_line import options
from sdar.config.words import shown
from sdar.errors import UserError
from sdar.run.folder import run_identity
from sdar.run.validate import compose

_MUST_AGREE = {
    "environment": "the tasks",
    "evaluation": "the panel",
    "model._target_": "the warm start",
    "model.path": "the warm start",
    "model.name": "the warm start",
    "model.revision": "the warm start",
    "model.dtype": "the warm start",
    "rollout.tasks_per_iteration": "the number of training tasks",
    "trainer.max_epochs": "the number of iterations",
    "trainer.max_time": "the length of training",
    "logs_dir": "where the runs lie",
}
"""Settings in which the runs of a comparison may not differ, and what would differ with them."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a comparison.

    ``arguments``  of its command line
    ``config``     its configuration in plain values
    ``identity``   equal for runs that give the same figures
    """

    method: str
    seed: int
    arguments: tuple[str, ...]
    config: Mapping[str, Any]
    identity: str

    @property
    def label(self) -> str:
        """How the run is called on the screen."""
        return f"{self.method} seed={self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, seed by seed, so that pairs are complete early.

    ``methods``  labels, the baseline first
    ``seeds``    the pairs
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]

    @property
    def logs_dir(self) -> Path:
        """Where the runs lie."""
        return Path(self.jobs[0].config["logs_dir"])

    @property
    def folder(self) -> Path:
        """Where the comparison is written: the same for the same runs, so that a second call goes on with the first."""
        digest = hashlib.blake2b("".join(job.identity for job in self.jobs).encode(), digest_size=4).hexdigest()
        words = "-vs-".join(dict.fromkeys(self.methods))
        kept = "".join(letter if letter.isalnum() or letter in "-=._" else "-" for letter in words)
        return self.logs_dir / "compare" / f"{kept[:60]}-{digest}"


def make_plan(request: Request) -> Plan:
    """Compose and validate every run.

    Raises:
        UserError: the first mistake; two methods that are the same; runs that cannot be compared.
    """
    labels = tuple(_label(method) for method in request.methods)
    jobs: list[Job] = []
    for seed in request.seeds:
        for number, label in enumerate(labels):
            overrides = request.overrides(number, seed)
            settings = compose(overrides, config_dir=request.config_dir, config_name=request.config_name)
            if not settings.train:
                raise UserError(
                    f"{label}: train is false in its settings, but a comparison trains every run; allowed are methods "
                    "that train (whose rows before training show the start weights without and with skills)"
                )
            arguments = (*options(request.config_dir, request.config_name), *overrides)
            jobs.append(Job(label, seed, arguments, settings.config, run_identity(settings.config)))
    _check_equal_terms(jobs)
    _check_different(jobs)
    return Plan(labels, request.seeds, tuple(jobs))


def _label(method: Sequence[str]) -> str:
    """``algorithm=grpo`` is called grpo, ``gate.beta=5`` keeps its name: 5 alone says nothing."""
    words = [text.lstrip("+") for text in method]
    short = [text.partition("=")[2] if "." not in text.partition("=")[0] else text for text in words]
    plain = [name if not _is_number(name) else text for name, text in zip(short, words, strict=True)]
    return ",".join(plain) or "all runs"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_equal_terms(jobs: Sequence[Job]) -> None:
    """Refuse runs whose settings already say that they would not be judged on equal terms."""
    first = jobs[0]
    for job in jobs[1:]:
        for path, what in _MUST_AGREE.items():
            found = _difference(_at(first.config, path), _at(job.config, path), path)
            if found is not None:
                where, ours, theirs = found
                raise UserError(
                    f"{where} is {shown(ours)} in {first.label} and {shown(theirs)} in {job.label}: {what} would "
                    "differ; allowed is a comparison on equal terms"
                )


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _difference(first: Any, second: Any, path: str) -> tuple[str, Any, Any] | None:
    """The first place in which two trees of settings differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in [*first, *(name for name in second if name not in first)]:
            found = _difference(first.get(name), second.get(name), f"{path}.{name}")
            if found is not None:
                return found
        return None
    return None if first == second else (path, first, second)


def _check_different(jobs: Sequence[Job]) -> None:
    known: dict[str, Job] = {}
    for job in jobs:
        other = known.setdefault(job.identity, job)
        if other is not job:
            raise UserError(f"{other.label} and {job.label} are the same run: nothing that differs changes a result")


def check_comparable(runs: Mapping[str, FinishedRun]) -> None:
    """Refuse finished runs that do not share panel, warm start, length and training tasks.

    ``runs``: how each is called -> the run. Runs of the same settings can differ in these: the files behind a name
    change, code changes, a run may end before its last iteration.

    Raises:
        UserError: naming the two runs, their folders and the difference.
    """
    entries = list(runs.items())
    for label, run in entries[1:]:
        other, first = entries[0]
        for what, ours, theirs in (
            ("panel (content hash)", first.panel, run.panel),
            ("warm start (hash of the initial weights)", first.warm_start, run.warm_start),
            ("number of iterations", first.iterations, run.iterations),
        ):
            if ours != theirs:
                raise UserError(_unequal(what, other, first, ours, label, run, theirs))
    known = [(label, run) for label, run in entries if run.training_tasks is not None]
    for label, run in known[1:]:
        other, first = known[0]
        if run.training_tasks != first.training_tasks:
            raise UserError(
                _unequal("training tasks", other, first, _tasks(first), label, run, _tasks(run)),
            )


def _tasks(run: FinishedRun) -> str:
    assert run.training_tasks is not None
    number, content = run.training_tasks
    return f"{number} ({content[:12]})"


def _unequal(what: str, other: str, first: FinishedRun, ours: Any, label: str, run: FinishedRun, theirs: Any) -> str:
    return (
        f"{other} ({first.folder}) and {label} ({run.folder}) differ in their {what}: {_short(ours)} and "
        f"{_short(theirs)}; allowed are runs that share it (move the one that is out of date away from its folder and "
        "compare again, or give a new logs_dir)"
    )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) >= 32 else text
