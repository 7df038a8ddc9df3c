"""An inverted index: which documents have a term, and what the term is worth there.

It is built in one pass over the documents with bounded memory, and lies in memory or in memory-mapped files.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdar.environments.lucene.similarity import length_factors, saturation
from sdar.environments.slices import Slices, SlicesWriter, mapped

_BLOCK = 1 << 22
"""Postings that are kept in memory while an index is built on disk: about 50 MB."""
_ARRAYS = ("starts", "documents", "saturations", "bounds")
_TERMS, _COUNTS = "terms", "counts.npy"


@dataclass(frozen=True)
class Postings:
    """A finished index of ``size`` documents, V terms and P postings.

    ``terms``        term -> its number, in the order of UTF-8
    ``starts``       [V + 1] int64: the postings of term t are ``starts[t]`` to ``starts[t + 1]``
    ``documents``    [P] int32: numbers of documents, rising within a term
    ``saturations``  [P] float32: see :func:`sdar.environments.lucene.similarity.saturation`
    ``bounds``       [V] float32: the largest saturation of each term
    ``filled``       how many documents have a term
    """

    terms: Mapping[str, int] | TermFile
    starts: np.ndarray
    documents: np.ndarray
    saturations: np.ndarray
    bounds: np.ndarray
    size: int
    filled: int

    @classmethod
    def load(cls, folder: Path) -> Postings:
        """The index that :meth:`PostingsWriter.finish` wrote, memory-mapped. OSError or ValueError: it is damaged."""
        arrays = {name: mapped(folder / f"{name}.npy") for name in _ARRAYS}
        size, filled = map(int, np.load(folder / _COUNTS))
        return cls(TermFile(folder), **arrays, size=size, filled=filled)


class TermFile:
    """The terms of an index on disk, found by bisection."""

    def __init__(self, folder: Path) -> None:
        self._texts = Slices.of(folder, _TERMS)
        self.get = lru_cache(maxsize=1 << 16)(self._get)

    def _get(self, term: str) -> int | None:
        wanted = _encoded(term)
        place = bisect_left(self._texts, wanted)
        return place if place < len(self._texts) and self._texts[place] == wanted else None


class _Block(NamedTuple):
    """Postings in the order of the documents, terms by the order in which they were met; [n] int32 each."""

    terms: np.ndarray
    documents: np.ndarray
    frequencies: np.ndarray


class PostingsWriter:
    """Takes the terms of documents, in their order, and makes an index of them.

    Args:
        folder: an empty folder for the index; None: it stays in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)
        self._lengths = array("i")
        self._blocks: list[_Block | Path] = []
        self._containing = np.zeros(0, np.int64)
        self._empty()

    def _empty(self) -> None:
        self._terms, self._frequencies, self._distinct = array("i"), array("i"), array("i")

    def add(self, terms: Sequence[str]) -> None:
        """The next document."""
        counts = Counter(map(self._numbers.__getitem__, terms))
        self._lengths.append(len(terms))
        self._distinct.append(len(counts))
        self._terms.extend(counts.keys())
        self._frequencies.extend(counts.values())
        if self._folder is not None and len(self._terms) >= _BLOCK:
            self._end_block()

    def _end_block(self) -> None:
        distinct = np.array(self._distinct, np.int32)
        first = len(self._lengths) - len(distinct)
        documents = np.repeat(np.arange(first, len(self._lengths), dtype=np.int32), distinct)
        block = _Block(np.array(self._terms, np.int32), documents, np.array(self._frequencies, np.int32))
        containing = np.bincount(block.terms, minlength=len(self._numbers))
        containing[: len(self._containing)] += self._containing
        self._containing = containing
        if self._folder is None:
            self._blocks.append(block)
        else:
            file = self._folder / f".block-{len(self._blocks)}.npy"
            np.save(file, np.stack(block))
            self._blocks.append(file)
        self._empty()

    def finish(self) -> Postings:
        """The index of all documents; on disk if there is a folder."""
        self._end_block()
        texts = list(map(_encoded, self._numbers))
        order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
        renumbered = np.empty(len(order), np.int64)
        renumbered[order] = np.arange(len(order))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._containing[order])])
        lengths = np.array(self._lengths, np.int32)
        factors = length_factors(lengths)
        documents = self._array("documents", int(starts[-1]), np.int32)
        saturations = self._array("saturations", int(starts[-1]), np.float32)
        bounds = self._array("bounds", len(order), np.float32)
        bounds[:] = 1
        places = starts[:-1].copy()
        for block in self._blocks:
            loaded = _loaded(block)
            terms = renumbered[loaded.terms]
            by_term = np.argsort(terms, kind="stable")
            numbers, firsts, counts = np.unique(terms[by_term], return_index=True, return_counts=True)
            targets = np.repeat(places[numbers] - firsts, counts) + np.arange(len(terms))
            found = loaded.documents[by_term]
            values = saturation(loaded.frequencies[by_term], factors[found])
            documents[targets] = found
            saturations[targets] = values
            if len(values):
                bounds[numbers] = np.maximum(bounds[numbers], np.maximum.reduceat(values, firsts))
            places[numbers] += counts
        size, filled = len(lengths), int(np.count_nonzero(lengths))
        if self._folder is None:
            known = {term: int(renumbered[number]) for term, number in self._numbers.items()}
            return Postings(known, starts, documents, saturations, bounds, size, filled)
        for written in (documents, saturations, bounds):
            if isinstance(written, np.memmap):
                written.flush()
        np.save(self._folder / "starts.npy", starts)
        np.save(self._folder / _COUNTS, np.array([size, filled]))
        with SlicesWriter(self._folder, _TERMS) as file:
            for number in order:
                file.write(texts[number])
        for block in self._blocks:
            if isinstance(block, Path):
                block.unlink()
        return Postings.load(self._folder)

    def _array(self, name: str, size: int, kind: type) -> np.ndarray:
        if self._folder is None or size == 0:
            made: np.ndarray = np.empty(size, kind)
            if self._folder is not None:
                np.save(self._folder / f"{name}.npy", made)
            return made
        mapping: np.ndarray = np.lib.format.open_memmap(
            self._folder / f"{name}.npy", mode="w+", dtype=kind, shape=(size,)
        )
        return mapping


def _loaded(block: _Block | Path) -> _Block:
    return block if isinstance(block, _Block) else _Block(*np.load(block))


def _encoded(term: str) -> bytes:
    return term.encode("utf-8", "surrogatepass")
