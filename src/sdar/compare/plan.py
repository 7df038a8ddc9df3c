"""The runs of a comparison, composed and validated. The settings of a pair differ in nothing but the method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.compare.request import Request
from sdar.config.command_line import options
from sdar.config.words import shown
from sdar.errors import UserError
from sdar.run.folder import check_own_checkpoints
from sdar.run.identity import run_identity
from sdar.run.validate import compose

_MUST_AGREE = {
    "environment": "the tasks",
    "evaluation": "the panel",
    **dict.fromkeys(("model._target_", "model.path", "model.name", "model.revision", "model.dtype"), "the warm start"),
    "rollout.tasks_per_iteration": "the number of training tasks",
    "trainer.max_epochs": "the number of iterations",
    "trainer.max_time": "the length of training",
    "logs_dir": "the location of the runs",
}
"""Settings that all runs of a comparison must share -> what they decide."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a comparison.

    ``arguments``  of its command line
    ``config``     its configuration in plain values
    ``identity``   equal for runs with the same figures
    """

    method: str
    seed: int
    arguments: tuple[str, ...]
    config: Mapping[str, Any]
    identity: str

    @property
    def label(self) -> str:
        """The name of the run on the screen."""
        return f"{self.method} seed={self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison, seed by seed, so that the first pairs are complete early.

    ``methods``  labels, the baseline first
    ``seeds``    the pairs
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]

    @property
    def logs_dir(self) -> Path:
        """Where the runs are searched and written."""
        return Path(self.jobs[0].config["logs_dir"])

    @property
    def folder(self) -> Path:
        """Where the comparison is written. The same runs have the same folder, so a second call continues the first."""
        digest = hashlib.blake2b("".join(job.identity for job in self.jobs).encode(), digest_size=4).hexdigest()
        words = "-vs-".join(dict.fromkeys(self.methods))
        kept = "".join(letter if letter.isalnum() or letter in "-=._" else "-" for letter in words)
        return self.logs_dir / "compare" / f"{kept[:60]}-{digest}"


def make_plan(request: Request) -> Plan:
    """Compose and validate every run. UserError: a setting is wrong, or runs are the same or cannot be compared."""
    labels = tuple(_label(method) for method in request.methods)
    jobs: list[Job] = []
    for seed in request.seeds:
        for number, label in enumerate(labels):
            overrides = request.overrides(number, seed)
            settings = compose(overrides, config_dir=request.config_dir, config_name=request.config_name)
            if not settings.train:
                raise UserError(
                    f"{label} sets train=false, but a comparison trains every run; leave the method out (the rows "
                    "before training show the initial weights without and with skills)"
                )
            _check_ends(label, settings.config)
            check_own_checkpoints(settings.config)
            arguments = (*options(request.config_dir, request.config_name), *overrides)
            jobs.append(Job(label, seed, arguments, settings.config, run_identity(settings.config)))
    _check_equal_terms(jobs)
    known: dict[str, Job] = {}
    for job in jobs:
        other = known.setdefault(job.identity, job)
        if other is not job:
            raise UserError(f"{other.label} and {job.label} are the same run: no setting that differs changes a result")
    return Plan(labels, request.seeds, tuple(jobs))


def _check_ends(label: str, config: Mapping[str, Any]) -> None:
    for name, node in config["callbacks"].items():
        target = str((node or {}).get("_target_", "")).rpartition(".")[2]
        if target in ("EarlyStopping", "Timer"):
            raise UserError(
                f"{label}: callbacks.{name} ends runs at different iterations, after which they cannot be compared; "
                "leave it out"
            )


def _label(method: Sequence[str]) -> str:
    """``algorithm=grpo`` is called grpo; ``gate.beta=5`` keeps its name, as 5 alone says nothing."""
    words: list[str] = []
    for override in method:
        text = override.lstrip("+")
        name, _, value = text.partition("=")
        words.append(text if "." in name or _is_number(value) else value)
    return ",".join(words) or "all runs"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_equal_terms(jobs: Sequence[Job]) -> None:
    """Refuse runs whose settings already rule out equal terms."""
    first, *others = jobs
    ours = _leaves(first.config)
    for job in others:
        theirs = _leaves(job.config)
        for name in dict.fromkeys((*ours, *theirs)):
            what = next((what for path, what in _MUST_AGREE.items() if f"{name}.".startswith(f"{path}.")), None)
            if what is not None and ours.get(name) != theirs.get(name):
                raise UserError(
                    f"{name} must be the same in all runs, got {shown(ours.get(name))} in {first.label} and "
                    f"{shown(theirs.get(name))} in {job.label}: it decides {what}"
                )


def _leaves(settings: Any, path: str = "") -> dict[str, Any]:
    """The values of a tree of settings by their dotted names."""
    if not isinstance(settings, Mapping) or not settings:
        return {path: settings}
    trees = (_leaves(value, f"{path}.{name}" if path else name) for name, value in settings.items())
    return {name: value for tree in trees for name, value in tree.items()}
