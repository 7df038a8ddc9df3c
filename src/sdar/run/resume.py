"""Continuing from a checkpoint: finding it, and refusing one that does not fit before any work is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdar.errors import NothingToDo, UserError
from sdar.learning.module import SDARModule
from sdar.policy.checkpoint import (
    check_optimizer,
    check_origin,
    check_parameters,
    check_training_state,
    finished_iterations,
)
from sdar.policy.checkpoint_file import damage, read_checkpoint
from sdar.run.continuing import CONTENTS_KEY, SAVED_KEY, SETTINGS_KEY
from sdar.run.folder import (
    LAST,
    LAST_CHECKPOINT,
    LAST_OR_NEW,
    RESULTS_FILE,
    checkpoints_of,
    find_runs,
    is_occupied,
    read_config,
    read_record,
    run_config,
)
from sdar.run.identity import config_hash

log = logging.getLogger(__name__)


def find_checkpoint(config: Mapping[str, Any], *, leader: bool = True) -> Path | None:
    """The checkpoint that ``ckpt_path`` means; None: start afresh.

    ``last`` is the newest whole one of the newest run with this configuration; files that are skipped are named in a
    warning. ``last_or_new`` is the same, and starts afresh where there is no such run yet. Only the ``leader``, the
    first process of a run, looks for runs that have saved nothing yet: the others would find their own.

    Raises:
        UserError: ``last``, and no run under ``logs_dir`` has this configuration, or it is still running.
        NothingToDo: ``last_or_new``, and this run has ended with all its iterations: a job that was started once more.
    """
    wanted = config["ckpt_path"]
    if wanted not in (LAST, LAST_OR_NEW):
        return None if wanted is None else Path(wanted)
    skipped: list[str] = []
    try:
        runs = find_runs(config["logs_dir"], config_hash(config))
    except UserError:
        if wanted == LAST_OR_NEW:
            return None
        raise
    for run in runs:
        files = checkpoints_of(run)
        if not files and _only_evaluates(run):
            continue
        if (leader or files) and is_occupied(run):
            raise UserError(f"ckpt_path=last means the run in {run}, which is still running; stop it first")
        for file in files:
            if (reason := damage(file) or _stranger(file, run, config)) is None:
                if wanted == LAST_OR_NEW and config["train"]:
                    _check_unfinished(file, run, config["trainer"].get("max_epochs"), leader=leader)
                if skipped:
                    log.warning("ckpt_path=last: skipped %s", "; ".join(skipped))
                return file
            skipped.append(f"{file} ({reason})")
    raise UserError(f"ckpt_path=last: no checkpoint is whole: {'; '.join(skipped)}")


def _only_evaluates(run: Path) -> bool:
    """Whether a run of these settings trains nothing, so that there will never be anything of it to continue."""
    try:
        return read_config(run).get("train") is False
    except UserError:
        return False


def _check_unfinished(file: Path, run: Path, limit: int | None, *, leader: bool) -> None:
    if limit is None or limit < 0 or read_record(run / RESULTS_FILE) is None:
        return
    if (finished := finished_iterations(read_checkpoint(file, mmap=True))) >= limit:
        where = f"ckpt_path=last_or_new means the run in {run}, which has ended after {finished} of {limit} iterations"
        raise NothingToDo(f"{where}: nothing is left to do; raise trainer.max_epochs to train on" if leader else "")


def _stranger(file: Path, run: Path, config: Mapping[str, Any]) -> str | None:
    """Why a checkpoint outside the run's folder is not this run's; None: it is, or does not say."""
    if file.parent == run / LAST_CHECKPOINT.parent:
        return None
    settings = _plain(read_checkpoint(file, mmap=True).get(SETTINGS_KEY))
    return None if settings is None or config_hash(settings) == config_hash(config) else "of another run"


@dataclass(frozen=True)
class Continued:
    """What a run continues from.

    ``iterations``  behind the checkpoint
    ``settings``    of its run; None: they are not known
    ``contents``    hashes of what they name (:func:`sdar.run.continuing.contents`), as far as they are known
    ``saved``       when it was made, in seconds since the epoch
    """

    path: Path
    iterations: int = 0
    settings: Mapping[str, Any] | None = None
    contents: Mapping[str, Any] = field(default_factory=dict)
    saved: float = 0.0


def check_checkpoint(path: Path, module: SDARModule, *, train: bool, max_iterations: int | None) -> Continued:
    """Refuse a checkpoint that cannot be read, is of another run, or has nothing left to train.

    ``train``: False where it is only evaluated, which takes its weights alone. ``max_iterations``: iterations after
    which training ends; None: without end. A run that was stopped between its last iteration and its last evaluation
    is finished.
    Only tensors and plain values are unpickled.
    """
    checkpoint = read_checkpoint(path, mmap=True)
    check_origin(checkpoint, module.policy)
    check_parameters(checkpoint, module, module.policy)
    if not train:
        return Continued(path)
    finished = finished_iterations(checkpoint)
    optimizer = module.optimizer_settings
    check_optimizer(checkpoint, optimizer.name)
    check_training_state(checkpoint, [group["params"] for group in optimizer.create(module.model).param_groups])
    # The trainer does the same, but only after the panel has been played.
    with restoring(path):
        module.on_load_checkpoint(dict(checkpoint))
    concluded = read_record(path.parent.parent / RESULTS_FILE) is not None
    if max_iterations is not None and 0 <= max_iterations < finished + concluded:
        raise UserError(
            f"trainer.max_epochs must be > {finished}, the iterations behind the checkpoint {path}, got "
            f"{max_iterations}; or set train=false to evaluate it"
        )
    settings, saved = _plain(checkpoint.get(SETTINGS_KEY)), checkpoint.get(SAVED_KEY)
    return Continued(
        path,
        finished,
        run_config(path) if settings is None else settings,
        _plain(checkpoint.get(CONTENTS_KEY)) or {},
        float(saved) if isinstance(saved, int | float) else path.stat().st_mtime,
    )


@contextmanager
def restoring(path: Path | None, begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Tell in a sentence of a checkpoint with a part of another shape: trainer and callbacks take theirs as it is.

    ``begun``: whether everything has been restored, so that an error has another reason. ``path`` None: nothing is.

    Raises:
        UserError: a part cannot be restored.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError) as error:
        if path is None or begun():
            raise
        raise UserError(
            f"ckpt_path={path} has a part of another shape, so that training cannot continue from it "
            f"({type(error).__name__}: {str(error)[:120]}); set train=false to evaluate its weights"
        ) from error


def _plain(value: Any) -> dict[str, Any] | None:
    """A mapping of plain values as it is; None for anything else, tensors among it."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
    read = json.loads(text)
    return read if isinstance(read, dict) else None
