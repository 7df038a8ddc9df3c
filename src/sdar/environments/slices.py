"""Many byte strings in one file, memory-mapped."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np


def mapped(file: Path) -> np.ndarray:
    """An array file, memory-mapped; a plain view of it, since slices of np.memmap objects are slow."""
    return np.asarray(np.load(file, mmap_mode="r"))


class Slices(Sequence[bytes]):
    """Byte strings one after the other: ``content`` [bytes] uint8, ``ends`` [n] int64, the end of each."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self._content, self._ends = content, ends

    @classmethod
    def of(cls, folder: Path, name: str) -> Slices:
        """What :class:`SlicesWriter` wrote. OSError or ValueError: it is not there, or damaged."""
        ends = mapped(folder / f"{name}_ends.npy")
        if len(ends) == 0 or ends[-1] == 0:  # there is no mapping of an empty file
            return cls(np.zeros(0, np.uint8), ends)
        return cls(np.asarray(np.memmap(folder / f"{name}.bin", np.uint8, "r")), ends)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: Any) -> Any:
        """A byte string; slices are not supported."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._content[self._ends[place - 1] if place else 0 : self._ends[place]].tobytes()


class SlicesWriter:
    """Writes byte strings for :class:`Slices`, in a ``with`` statement."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ends_file = folder / f"{name}_ends.npy"
        self._file = (folder / f"{name}.bin").open("wb")
        self._ends, self._size = array("q"), 0

    def write(self, content: bytes) -> None:
        """The next one."""
        self._file.write(content)
        self._size += len(content)
        self._ends.append(self._size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        np.save(self._ends_file, np.array(self._ends, np.int64))
