"""Passages on disk: a jsonl file with ``id`` and ``contents`` per line, read through memory-mapped line offsets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdar.environments.search_qa.retriever import Passage, readable
from sdar.errors import UserError

_BLOCK = 1 << 22

_SHORTEST = len('{"id":1,"contents":""}')
"""Bytes of the shortest passage; a shorter line may be blank."""


class JsonlCorpus(Sequence[Passage]):
    """The passages of a file by number; a passage is read and parsed when it is asked for.

    ``offsets`` [n + 1] int64: where each line starts, and the end of the last. Opening reads nothing else of the file.
    """

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        self.path = path
        self.offsets = offsets
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        """A passage; slices give lists. UserError for a line that is no passage."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        try:
            return _passage(self._bytes[start:end].tobytes())
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            blocks = (self._bytes[at : min(at + _BLOCK, start)] for at in range(0, start, _BLOCK))
            number = 1 + sum(block.tobytes().count(b"\n") for block in blocks)
            raise UserError(
                f"environment.search_engine.corpus={self.path}: line {number} is no passage; "
                'each line must be a JSON object with "id" and "contents"'
            ) from error

    def __iter__(self) -> Iterator[Passage]:
        for index in range(len(self)):
            yield self[index]


def _passage(line: bytes) -> Passage:
    record = json.loads(line)
    return Passage(str(record["id"]), readable(_text(record["contents"])))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"contents are {type(value).__name__}")
    return value


def line_offsets(path: Path) -> np.ndarray:
    """Start of every line that is not blank, and the end of the file; [n + 1] int64. Streams: any size will do."""
    starts: list[np.ndarray] = [np.zeros(1, np.int64)]
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            starts.append(ends.astype(np.int64) + size + 1)
            size += len(block)
    bounds = np.concatenate(starts)
    if bounds[-1] != size:  # the last line has no line break
        bounds = np.append(bounds, size)
    lengths = np.diff(bounds)
    empty = lengths <= 1  # a lone line break is no passage, and neither are blanks
    with path.open("rb") as file:
        for number in np.flatnonzero(~empty & (lengths < _SHORTEST)):
            file.seek(bounds[number])
            empty[number] = not file.read(lengths[number]).strip()
    kept = bounds[:-1][~empty]
    return np.append(kept, size) if len(kept) else np.zeros(1, np.int64)


def content_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, read once from front to back."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def checked_path(path: str | Path) -> Path:
    """The corpus file.

    Raises:
        UserError: there is none, or it is compressed (a line of it could not be found without reading all before).
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"environment.search_engine.corpus={path}: there is no such file; a jsonl file is needed")
    if not os.access(file, os.R_OK):
        raise UserError(f"environment.search_engine.corpus={path}: it may not be read; a jsonl file is needed")
    if file.suffix in (".xz", ".gz", ".bz2", ".zst", ".zip"):
        raise UserError(f"environment.search_engine.corpus={path}: decompress it first; passages are read in place")
    return file
