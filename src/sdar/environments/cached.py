"""Folders that are made once from other files, kept under the user's cache folder, and only used whole.

A folder is written under another name beside its place and renamed, so that it is there whole or not at all. Of several
processes one makes it, under a lock, and the others wait. Its record has the sizes of its files: what was shortened is
made again. What a killed process left unfinished is removed when the next folder is made beside it.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sdar.files import MB, FileError, read_json

RECORD = "index.json"

_UNFINISHED = re.compile(r"\.(?P<folder>.+)-[a-z0-9_]+")
"""Name of what is not finished yet: the folder's, and what ``tempfile`` adds."""


def is_whole(folder: Path) -> bool:
    """Whether all files of a folder are there, and none is shorter or longer than it was written."""
    try:
        sizes = read_record(folder)["bytes"].items()
        return all((folder / name).stat().st_size == size for name, size in sizes)
    except (FileError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_record(folder: Path) -> Any:
    """What :func:`write_folder` wrote of a folder. FileError: it has none."""
    return read_json(folder / RECORD, MB)


def write_folder(folder: Path, fill: Callable[[Path], Mapping[str, Any]]) -> None:
    """Make a folder that is not there whole: ``fill`` writes its files into an empty one and returns what to record.

    The parent has such folders alone. OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _held(folder) as held:
        if is_whole(folder):
            return  # another process was first
        if held:
            _remove_unfinished(folder)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            record = fill(partial)
            files = (file for file in partial.rglob("*") if file.is_file())
            sizes = {file.relative_to(partial).as_posix(): file.stat().st_size for file in files}
            (partial / RECORD).write_text(json.dumps({**record, "bytes": sizes}) + "\n")
            _put(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _put(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if is_whole(folder):
            return  # without locks, another process was first, with the same files
        folder.rename(partial / "broken")  # damaged, and removed with the rest
        partial.rename(folder)
        shutil.rmtree(folder / "broken")


@contextmanager
def _held(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder; gives False where that cannot be: another process has it, or there are no locks here.

    The lock is the operating system's and ends with the process, however it ends.
    """
    lock = FileLock(folder.parent / f".{folder.name}.lock", blocking=wait)
    try:
        lock.acquire()
    except (Timeout, NotImplementedError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove_unfinished(folder: Path) -> None:
    """Remove what no process makes any more, of this folder, which is held, and of those beside it."""
    for found in folder.parent.iterdir():
        name = _UNFINISHED.fullmatch(found.name)
        if name is None:
            continue
        if name["folder"] == folder.name:
            _remove(found)
            continue
        with _held(folder.with_name(name["folder"]), wait=False) as held:
            if held:
                _remove(found)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):  # another user's, which costs nothing but space
        path.unlink()
