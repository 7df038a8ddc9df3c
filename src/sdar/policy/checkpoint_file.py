"""Checkpoint files: written whole or not at all, and checked before they are read.

A file is written beside its place, synced and renamed, so that a reader never sees half of one and a full disk leaves
the file of before. ``torch.save`` writes a zip archive with a CRC-32 for every tensor, which ``torch.load`` ignores.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdar.errors import RunFailed, UserError, system_reason

NUMBERS = ("state_dict", "optimizer_states", "sdar_teacher")
"""What of a checkpoint must be finite: weights, moments, and an averaged teacher. Callbacks keep what they like."""

_CODE = re.compile(r"GLOBAL (\S+)")
"""What torch says of an object in a checkpoint that is neither a tensor nor a plain value."""


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Replace a file by a checkpoint, or leave everything as it was.

    What is written can be read again: an object that only code could bring back is refused here, not when the run is
    to be continued.

    Raises:
        RunFailed: weights or moments are not finite, a value is neither a tensor nor plain, or the file cannot be
            written.
    """
    if name := first_not_finite({key: checkpoint[key] for key in NUMBERS if key in checkpoint}):
        raise RunFailed(f"{name} is not finite, so the checkpoint {path} was not written; nothing saved before is lost")
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise _refusal(checkpoint, path) from error
            file.flush()
            os.fsync(file.fileno())
        if not _is_plain(part):
            raise _refusal(checkpoint, path)
        part.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch wraps what the operating system says
        reason = system_reason(error)
        if reason is None:
            raise
        raise RunFailed(
            f"the checkpoint {path} cannot be written ({reason}; {free_gib(path.parent):.2f} GiB are free); nothing "
            "saved before is lost: make room and continue with ckpt_path=last"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _refusal(checkpoint: Mapping[str, Any], path: Path) -> RunFailed:
    what = _not_plain(checkpoint) or "a value is not a plain one"
    return RunFailed(
        f"{what}, which only code could read back, so the checkpoint {path} was not written; keep tensors, numbers, "
        "texts, lists and dicts in the states of callbacks and teachers"
    )


def _is_plain(saved: Any) -> bool:
    """Whether a file, or what has its form, holds nothing but tensors and plain values."""
    try:
        torch.load(saved, map_location="cpu", weights_only=True, mmap=isinstance(saved, Path))
    except pickle.UnpicklingError:
        return False
    return True


def _not_plain(values: Any, name: str = "") -> str:
    """Names the first value inside that is neither a tensor nor plain, and says what it is; "" if there is none."""
    inner: Iterator[tuple[Any, str]]
    if type(values) in (dict, OrderedDict):
        keys = ((key, f"a key of {name or 'the checkpoint'}") for key in values)
        inner = chain(keys, ((values[key], f"{name}.{key}" if name else str(key)) for key in values))
    elif type(values) in (list, tuple):
        inner = ((value, f"{name}[{number}]") for number, value in enumerate(values))
    else:
        buffer = io.BytesIO()
        with suppress(Exception):  # whatever an object raises that cannot be pickled at all
            torch.save(values, buffer)
            buffer.seek(0)
            if _is_plain(buffer):
                return ""
        return f"{name} is a {type(values).__module__}.{type(values).__qualname__}"
    return next(filter(None, (_not_plain(value, where) for value, where in inner)), "")


def share_file(source: Path, target: Path) -> None:
    """Give a checkpoint a second name, replacing what has it; a copy where the file system has no links."""
    part = _part(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
            with part.open("rb") as copied:
                os.fsync(copied.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> Mapping[str, Any]:
    """A checkpoint's content on the CPU; ``mmap``: tensors stay in the file until they are used.

    Every byte is checked first. Only tensors and plain values are unpickled.

    Raises:
        UserError: the file cannot be read, is damaged, holds code, or is not a checkpoint.
    """
    damaged = damage(path)
    if damaged is not None:
        raise UserError(f"ckpt_path={path} cannot be read as a checkpoint ({damaged})")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        if found := _CODE.search(str(error)):
            raise UserError(
                f"ckpt_path={path} holds code ({found[1]}), which a checkpoint must not; nothing of it was run"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"ckpt_path={path} cannot be read as a checkpoint ({reason[:120]})") from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"ckpt_path must be a checkpoint written by sdar, got {path}")
    return checkpoint


def damage(path: str | Path) -> str | None:
    """What is wrong with the bytes of a checkpoint file; None: nothing."""
    if not Path(path).is_file():
        return "it is not a regular file"
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except zipfile.BadZipFile:
        return "it was not written by torch.save, or only in part"
    except Exception as error:  # whatever a changed byte of the directory leads to
        return f"it is damaged: {type(error).__name__}: {error}"
    return None if part is None else f"it is damaged: the bytes of {part} are not those that were written"


def first_not_finite(values: Any, name: str = "") -> str | None:
    """The name of the first tensor inside that holds NaN or infinity; None: all are finite."""
    for where, tensor in _tensors(values, name):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return where
    return None


def free_gib(folder: Path) -> float:
    """Free space of the file system of a folder, which need not exist yet, in GiB."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free / 2**30


def _tensors(values: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        yield name, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            yield from _tensors(value, f"{name}[{number}]")


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _sync_folder(folder: Path) -> None:
    """A rename is safe from a power cut once its folder is synced; not every system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
