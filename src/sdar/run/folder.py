"""Run folders: where a run writes, and how a stopped run is found again.

A run folder holds ``config.yaml`` (resolved), ``run.json`` (versions, git revision, seed, hash, command),
``tensorboard/``, ``checkpoints/``, ``episodes.jsonl`` and ``results.json``.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from sdar.config.paths import check_paths
from sdar.config.sources import PACKAGE_FOLDER
from sdar.errors import UserError
from sdar.files import MB, FileError, read_json, read_yaml
from sdar.run.identity import IDENTITY_VERSION, config_hash
from sdar.run.rules.names import check_name

CONFIG_FILE = "config.yaml"
RUN_FILE = "run.json"
RESULTS_FILE = "results.json"
LOCK_FILE = "running.lock"
STATE_FILE = "state.json"
"""How far the run is: ``iteration``, how many it has learned from, ``of`` how many."""
LAST, LAST_OR_NEW = "last", "last_or_new"
"""Words for ``ckpt_path``: the newest checkpoint of a run with the same settings, or else none."""
LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"

_RECORD, _CONFIG = 100 * MB, MB
"""Sizes beyond which a record and a configuration are not read."""


def new_run_folder(logs_dir: str | Path, name: str, now: datetime, mark: str = "") -> Path:
    """The folder of a new run, ``<logs_dir>/<name>/<date>_<time>``, with a number where that is taken. Not created.

    ``mark`` is put behind the time: runs that start in the same second, in several processes, need one each.

    UserError: ``name`` is no folder's name below ``logs_dir``.
    """
    check_name(name)
    stem = now.strftime("%Y-%m-%d_%H-%M-%S") + (f"_{mark}" if mark else "")
    folder = Path(logs_dir) / name / stem
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{stem}-{number}")
        number += 1
    return folder


def make_run_folder(logs_dir: str | Path, name: str, now: datetime, mark: str = "") -> Path:
    """Create the folder of :func:`new_run_folder`, which is nobody else's then."""
    while True:
        folder = new_run_folder(logs_dir, name, now, mark)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another process was faster
            continue
        return folder


def find_runs(logs_dir: str | Path, wanted: str) -> list[Path]:
    """Folders of the runs under ``logs_dir`` whose configuration hash is ``wanted``, newest first.

    Raises:
        UserError: none of them has a checkpoint.
    """
    found: list[tuple[str, str, Path]] = []
    others = older = 0
    for file in Path(logs_dir).glob(f"**/{RUN_FILE}"):
        record = read_record(file)
        if record is None:
            continue
        mine = record.get("identity_version") == IDENTITY_VERSION and record.get("config_hash") == wanted
        if mine:
            found.append((str(record.get("started", "")), str(file), file.parent))
        elif checkpoints_of(file.parent):
            older += record.get("identity_version") != IDENTITY_VERSION
            others += record.get("identity_version") == IDENTITY_VERSION
    if not any(checkpoints_of(folder) for _, _, folder in found):
        told = f" ({older} more were made by an earlier version, whose settings cannot be compared)" if older else ""
        raise UserError(
            f"ckpt_path=last: of the {others} runs with a checkpoint under {logs_dir}, none has this configuration "
            f"(hash {wanted}){told}; use the same settings as the run, or ckpt_path=PATH"
        )
    return [folder for _, _, folder in sorted(found, reverse=True)]


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run from which it can go on, the newest first."""
    where = checkpoint_folder(folder)
    last = where / LAST_CHECKPOINT.name
    return [*([last] if last.is_file() else []), *sorted(where.glob("iteration-*.ckpt"), reverse=True)]


def checkpoint_folder(folder: Path) -> Path:
    """Where a run keeps its checkpoints: in its folder, which may have moved, or where its settings say."""
    with suppress(UserError):
        given = _own_directory(read_config(folder))
        if given is not None:
            return given
    return folder / LAST_CHECKPOINT.parent


def check_own_checkpoints(settings: Mapping[str, Any]) -> None:
    """UserError where the checkpoints of several runs would lie in one folder."""
    given = _own_directory(settings)
    if given is not None:
        raise UserError(
            f"callbacks.checkpoint.directory={given}: several runs would write their checkpoints there; leave it out, "
            "and each keeps them in its folder"
        )


def check_free_checkpoints(settings: Mapping[str, Any]) -> None:
    """UserError where a new run would write over the checkpoints of another one."""
    given = _own_directory(settings)
    if given is not None and settings.get("ckpt_path") is None and any(given.glob("*.ckpt")):
        raise UserError(
            f"callbacks.checkpoint.directory={given} has checkpoints of another run; set another folder, or continue "
            "that run with ckpt_path"
        )


def _own_directory(settings: Mapping[str, Any]) -> Path | None:
    """Where the settings want checkpoints, if not in the run's folder."""
    with suppress(KeyError, TypeError):
        given = Path(settings["callbacks"]["checkpoint"]["directory"])
        if given != Path(settings["run_dir"]) / LAST_CHECKPOINT.parent:
            return given
    return None


def read_record(file: Path) -> dict[str, Any] | None:
    """A JSON record of a run; None where it cannot be read: half of one, no file, or far too large."""
    try:
        record = read_json(file, _RECORD)
    except FileError:
        return None
    return record if isinstance(record, dict) else None


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON record whole or not at all: a reader never sees half of one."""
    write_whole(file, json.dumps(record, indent=2) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write a text whole or not at all. An OSError names the file."""
    half = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with half.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        half.replace(file)
    except OSError as error:
        error.filename = str(file)
        raise
    finally:
        half.unlink(missing_ok=True)


def check_writable(name: str, path: str | Path) -> None:
    """UserError, naming the setting, where a folder ``path`` neither is nor could be made to write in."""
    check_paths({name: str(path)})
    folder = Path(path)
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    reason = (
        "not a directory" if not there.is_dir() else "not writable" if not os.access(there, os.W_OK | os.X_OK) else ""
    )
    if reason:
        raise UserError(f"{name}={path}: {there} is {reason}; {name} must be a writable directory")


@contextmanager
def occupied(folder: Path) -> Iterator[bool]:
    """Hold a folder while something runs in it; gives False where another process holds it already.

    The lock is the operating system's and ends with the process, however it ends. Where there are no such locks
    (Windows, some network file systems) the folder counts as free.

    UserError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror or error})") from error
    from filelock import FileLock, Timeout

    # Not at once: who only asks holds it for a moment, see is_occupied.
    lock = FileLock(folder / LOCK_FILE, timeout=0.5)
    try:
        lock.acquire(poll_interval=0.02)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        pass  # a file system without locks
    try:
        yield True
    finally:
        lock.release()
        (folder / LOCK_FILE).unlink(missing_ok=True)


def is_occupied(folder: Path) -> bool:
    """Whether a process holds the folder now, see :func:`occupied`."""
    file = folder / LOCK_FILE
    if not file.is_file():  # a pipe would block
        return False
    try:
        import fcntl

        # A shared lock: any number of processes may ask at once, also about the file of another user.
        with file.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):  # nothing to lock, or no locks
        return False
    return False


class _Dumper(yaml.SafeDumper):
    """Writes a value in full wherever it stands: a configuration is read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def write_run_folder(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    started: datetime,
    command: Sequence[str],
    resumed_from: Path | None,
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Create the folder and put into it what is known before the run starts.

    ``changed``: settings that are not those of the run that is continued.
    """
    import platform

    from sdar.skills.library import skills_hash

    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_whole(folder / CONFIG_FILE, text)
    record = {
        "started": started.isoformat(timespec="microseconds"),
        "config_hash": config_hash(settings),
        "identity_version": IDENTITY_VERSION,
        "seed": settings["seed"],
        "evaluation_seed": settings["evaluation"]["seed"],
        "skills_hash": skills_hash(settings),
        "command": list(command),
        "resumed_from": None if resumed_from is None else str(resumed_from),
        "changed": dict(changed or {}),
        "git": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
    }
    write_record(folder / RUN_FILE, record)


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved settings that :func:`write_run_folder` left.

    Raises:
        UserError: they cannot be read, or are no settings.
    """
    settings = read_yaml(folder / CONFIG_FILE, _CONFIG)
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise FileError(folder / CONFIG_FILE, "must hold the settings of a run")
    return settings


def run_config(policy: str | Path) -> dict[str, Any] | None:
    """The settings of a checkpoint's run. None if ``policy`` is not a checkpoint in a run folder."""
    folder = Path(policy).resolve().parent.parent
    return read_config(folder) if Path(policy).is_file() and (folder / CONFIG_FILE).is_file() else None


@functools.cache
def versions() -> dict[str, str | None]:
    """Installed versions of this package and of all that it names, extras included; None: not installed."""
    from importlib.metadata import PackageNotFoundError, requires, version  # slow, and a refused setting needs none

    found: dict[str, str | None] = {}
    for name in ["sdar", *(re.split(r"[^\w.-]", text)[0] for text in requires("sdar") or ())]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_revision() -> dict[str, Any] | None:
    """Commit of the clone that this package runs from, and whether files differ from it; None outside a clone."""
    import subprocess

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE_FOLDER), *arguments], capture_output=True, text=True, check=False, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie in a virtual environment inside somebody else's repository.
    if git("ls-files", "--error-unmatch", "errors.py") is None:
        return None
    revision = git("rev-parse", "HEAD")
    return None if revision is None else {"revision": revision, "changed": bool(git("status", "--porcelain"))}
