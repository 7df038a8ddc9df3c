"""Folders that are made once from other files, kept under the user's cache folder, and only used whole.

A folder is written under another name beside its place and renamed, so that it is there whole or not at all, also when
several processes make it at the same time. Its record has the sizes of its files: what was shortened is made again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdar.files import MB, FileError, read_json

RECORD = "index.json"


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
    """Make a folder: ``fill`` writes its files into an empty one and returns what to record of it.

    The first of several processes wins. OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        record = fill(partial)
        files = (file for file in partial.rglob("*") if file.is_file())
        sizes = {file.relative_to(partial).as_posix(): file.stat().st_size for file in files}
        (partial / RECORD).write_text(json.dumps({**record, "bytes": sizes}) + "\n")
        try:
            partial.rename(folder)
        except OSError:
            if is_whole(folder):
                return  # another process was first, with the same files
            folder.rename(partial / "broken")  # damaged, and removed with the rest
            partial.rename(folder)
            shutil.rmtree(folder / "broken")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
