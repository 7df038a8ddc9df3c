"""Passages on disk: a memory-mapped jsonl file with ``id`` and ``contents`` per line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sdar.environments.search_qa.retriever import Passage, readable
from sdar.errors import UserError
from sdar.files import GB, MB, FileError, expanded, opened, packed, parse_json

BLOCK = 1 << 22
"""Bytes per read."""
_PIECE = 1 << 12
"""Bytes per read of a line that may be blank; most that are not show it in the first."""
MAX_BYTES, MAX_LINE = 1_000 * GB, 16 * MB
"""Largest corpus and its longest passage; wiki-18 has 14 GB."""
_MOST_BLANK = 1000
"""Lines among which the first passage is looked for before the file is read as a whole."""


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
            return _passage(self._bytes[start : min(end, start + MAX_LINE)].tobytes())
        except (ValueError, KeyError, TypeError) as error:
            blocks = (self._bytes[at : min(at + BLOCK, start)] for at in range(0, start, BLOCK))
            number = 1 + sum(block.tobytes().count(b"\n") for block in blocks)
            raise _no_passage(self.path, number) from error

    def __iter__(self) -> Iterator[Passage]:
        for index in range(len(self)):
            yield self[index]


def _no_passage(path: Path, line: int) -> UserError:
    return UserError(
        f"environment.search_engine.corpus={path}: line {line} is not a passage; "
        'each line must be a JSON object with "id" and "contents"'
    )


def _passage(line: bytes) -> Passage:
    record = parse_json(line.strip().decode("utf-8-sig"))  # blank lines behind it are a part of it
    return Passage(str(record["id"]), readable(_text(record["contents"])))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"contents must be a string, got {type(value).__name__}")
    return value


def line_offsets(path: Path) -> np.ndarray:
    """Start of every line that is not blank, and the end of the file; [n + 1] int64. Streams files of any size."""
    starts: list[np.ndarray] = []
    firsts: list[np.ndarray] = []  # bytes of the lines: only one that begins with whitespace can be blank
    size, fresh = 0, True
    with opened(path, MAX_BYTES) as file:
        while block := file.read(BLOCK):
            data = np.frombuffer(block, np.uint8)
            begins = np.flatnonzero(data[:-1] == ord("\n")) + 1
            if fresh:
                begins = np.concatenate([[0], begins])
            starts.append(begins.astype(np.int64) + size)
            firsts.append(data[begins])
            size += len(block)
            fresh = block.endswith(b"\n")
        if not starts:
            return np.zeros(1, np.int64)
        bounds, first = np.append(np.concatenate(starts), size), np.concatenate(firsts)
        empty = first == ord("\n")
        for number in np.flatnonzero((first <= ord(" ")) & ~empty):
            empty[number] = _is_blank(file, int(bounds[number]), int(bounds[number + 1]))
    kept = bounds[:-1][~empty]
    return np.append(kept, size) if len(kept) else np.zeros(1, np.int64)


def _is_blank(file: BinaryIO, start: int, end: int) -> bool:
    """Whether there is only whitespace between two places of a file."""
    file.seek(start)
    while start < end:
        part = file.read(min(end - start, _PIECE))
        if not part or part.strip():
            return False
        start += len(part)
    return True


def content_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, read in one pass."""
    with opened(path, MAX_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_path(path: str | Path) -> Path:
    """The corpus file, as far as its beginning says.

    Raises:
        UserError: it does not exist, is no regular file, cannot be read, is compressed (lines of it could not be
            accessed at random), or does not begin with a passage.
    """
    file = expanded(path)
    try:
        with opened(file, MAX_BYTES) as lines:
            first = ((number, lines.readline(MAX_LINE)) for number in range(1, _MOST_BLANK))
            number, head = next(((number, line) for number, line in first if line.strip() or not line), (1, b""))
    except (FileError, OSError) as error:
        reason = error.reason if isinstance(error, FileError) else f"cannot be read ({error.strerror})"
        raise UserError(f"environment.search_engine.corpus={path} {reason}; it must be a jsonl file") from error
    if compressed := packed(head):
        raise UserError(f"environment.search_engine.corpus={path} must be a plain jsonl file, got {compressed}")
    try:
        if head:
            _passage(head)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_passage(file, number) from error
    return file
