"""Passages on disk: a memory-mapped jsonl file with ``id`` and ``contents`` per line."""

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

BLOCK = 1 << 22
"""Bytes per read."""

_SHORTEST = len('{"id":1,"contents":""}')
"""Bytes of the shortest passage. A shorter line may be blank."""


class JsonlCorpus(Sequence[Passage]):
    """The passages of a file, each read and parsed on access.

    ``offsets`` [n + 1] int64: the start of each line, and the end of the last. Opening does not read the file.
    """

    def __init__(self, path: Path, offsets: np.ndarray) -> None:
        self.path = path
        self.offsets = offsets
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        """A passage, or a list for a slice. Raises UserError for a line that is not a passage."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        try:
            return _passage(self._bytes[start:end].tobytes())
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            blocks = (self._bytes[at : min(at + BLOCK, start)] for at in range(0, start, BLOCK))
            number = 1 + sum(block.tobytes().count(b"\n") for block in blocks)
            raise UserError(
                f"environment.search_engine.corpus={self.path}: line {number} is not a passage; "
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
        raise TypeError(f"contents must be a string, got {type(value).__name__}")
    return value


def line_offsets(path: Path) -> np.ndarray:
    """Start of every line that is not blank, and the end of the file; [n + 1] int64. Streams files of any size."""
    starts: list[np.ndarray] = [np.zeros(1, np.int64)]
    size = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            starts.append(ends.astype(np.int64) + size + 1)
            size += len(block)
    bounds = np.concatenate(starts)
    if bounds[-1] != size:  # the last line has no line break
        bounds = np.append(bounds, size)
    lengths = np.diff(bounds)
    empty = lengths <= 1  # neither a lone line break nor blanks are a passage
    with path.open("rb") as file:
        for number in np.flatnonzero(~empty & (lengths < _SHORTEST)):
            file.seek(bounds[number])
            empty[number] = not file.read(lengths[number]).strip()
    kept = bounds[:-1][~empty]
    return np.append(kept, size) if len(kept) else np.zeros(1, np.int64)


def content_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, read in one pass."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_path(path: str | Path) -> Path:
    """The corpus file.

    Raises:
        UserError: it does not exist, cannot be read, or is compressed (lines of it could not be accessed at random).
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"environment.search_engine.corpus={path}: there is no such file; it must be a jsonl file")
    if not os.access(file, os.R_OK):
        raise UserError(f"environment.search_engine.corpus={path}: permission denied; it must be a readable jsonl file")
    if file.suffix in (".xz", ".gz", ".bz2", ".zst", ".zip"):
        raise UserError(f"environment.search_engine.corpus={path} is compressed; it must be a plain jsonl file")
    return file
