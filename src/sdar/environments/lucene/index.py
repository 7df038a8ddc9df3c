"""The best documents for the terms of a query, by Lucene's BM25."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sdar.environments.lucene.postings import Postings, PostingsWriter
from sdar.environments.lucene.similarity import weight

_MARGIN = 1e-4
"""Relative slack of what a document needs: sums of a few hundred numbers of 32 bits are far closer than this."""
_SPARSE = 5
"""How many times more postings than candidates a term must have for the candidates to be looked up in it one by one."""
_FEW = 1 << 16
"""Postings that are added up sooner than thought about."""
_AHEAD = 2
"""How many times more documents than are wanted have their scores completed early."""


class _Term(NamedTuple):
    weight: np.float32
    bound: float
    documents: np.ndarray
    saturations: np.ndarray

    def scores(self, where: np.ndarray | slice) -> np.ndarray:
        """What the term adds to the scores of its documents."""
        scores: np.ndarray = self.weight / self.saturations[where]
        np.subtract(self.weight, scores, out=scores)
        return scores


class _Search:
    """One query. ``sums`` [n] float32 is 0 everywhere before, and again after :meth:`clear`.

    Sums are rounded at every term: they only say which documents can be among the best, with a margin.
    """

    def __init__(self, terms: Sequence[_Term], sums: np.ndarray, limit: int) -> None:
        self._sums = sums
        self._terms = terms
        self._limit = limit
        self._met: list[np.ndarray] = []
        """Documents with a sum other than 0, most of them once."""
        self._everywhere = False
        """Whether there are others."""
        self._least = 0.0
        self._rest = np.cumsum([0.0, *(term.bound for term in reversed(terms))])[::-1].tolist()
        """What the terms from a number on can add at most."""

    def candidates(self) -> np.ndarray:
        """Documents [m] int32, rising, among which the best ones are."""
        number = self._collect()
        candidates = np.concatenate(self._met)
        if len(candidates) < _FEW:
            candidates = candidates[self._able(candidates, number)]
        for place in range(number, len(self._terms)):
            term = self._terms[place]
            if len(candidates) * _SPARSE < len(term.documents):
                self._sums[candidates] += _looked_up(term, candidates)
            else:
                self._everywhere = True
                self._add(term)
            candidates = candidates[self._able(candidates, place + 1)]
            self._raise(self._sums[candidates])
        return np.unique(candidates[self._able(candidates, len(self._terms))])

    def scores(self, documents: np.ndarray) -> np.ndarray:
        """The scores of some documents [m] float32: sums of 64-bit numbers, rounded once."""
        found = np.zeros(len(documents), np.float64)
        for term in self._terms:
            found += _looked_up(term, documents)
        return found.astype(np.float32)

    def clear(self) -> None:
        """Set the sums back to 0."""
        if self._everywhere:
            self._sums.fill(0.0)
            return
        for documents in self._met:
            self._sums[documents] = 0.0

    def _collect(self) -> int:
        """Add up terms until the others cannot lift a new document into the result; the number of the next term."""
        number = new = 0
        left = sum(len(term.documents) for term in self._terms)
        leaders = np.zeros(0, np.int32)
        while number < len(self._terms) and self._rest[number] >= self._least:
            term = self._terms[number]
            before, values = self._add(term)
            self._met.append(term.documents[before == 0.0])
            number += 1
            new, left = new + len(values), left - len(values)
            if new < _FEW or left < _FEW:
                continue
            leaders = np.union1d(leaders, _leaders(term.documents, values, self._limit * _AHEAD))
            complete = self._sums[leaders]
            for other in self._terms[number:]:
                complete += _looked_up(other, leaders)
            self._raise(complete)
            new = 0
        return number

    def _add(self, term: _Term) -> tuple[np.ndarray, np.ndarray]:
        """Add a term to all its documents; their sums before and after."""
        places = term.documents.astype(np.intp)
        before: np.ndarray = self._sums[places]
        values = before + term.scores(slice(None))
        self._sums[places] = values
        return before, values

    def _able(self, documents: np.ndarray, number: int) -> np.ndarray:
        """Which of the documents can still be among the best, the terms from a number on included."""
        able: np.ndarray = self._sums[documents] >= np.float32(self._least - self._rest[number])
        return able

    def _raise(self, values: np.ndarray) -> None:
        """Note that documents have these sums, or more: the best ones have at least the last of their best."""
        if len(values) >= self._limit:
            place = len(values) - self._limit
            self._least = max(self._least, float(np.partition(values, place)[place]) * (1.0 - _MARGIN))


def _leaders(documents: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` documents with the largest values."""
    return documents if len(values) <= count else documents[np.argpartition(values, -count)[-count:]]


def _looked_up(term: _Term, documents: np.ndarray) -> np.ndarray:
    """What a term adds to the scores of some documents, float32."""
    where = np.searchsorted(term.documents, documents)
    where[where == len(term.documents)] = 0
    found: np.ndarray = np.where(term.documents[where] == documents, term.scores(where), np.float32(0))
    return found


class InvertedIndex:
    """Finds documents. Equal scores are ordered by ``ranks`` [n] int, by default in the order of the documents.

    The result is that of adding up every posting. Terms are taken in the order of what they can add at most; when the
    rest of them cannot lift a new document into the result, only the documents that can still be in it are followed
    (MaxScore: Turtle and Flood, Information Processing & Management 31(6), 1995). What a document needs for the result
    is known early, from the complete scores of those that lead so far.
    """

    def __init__(self, postings: Postings, ranks: np.ndarray | None = None) -> None:
        self._postings = postings
        self._ranks = ranks
        self._scratch = threading.local()

    @classmethod
    def of(cls, documents: Iterable[Sequence[str]], ranks: np.ndarray | None = None) -> InvertedIndex:
        """An index in memory of the terms of documents."""
        writer = PostingsWriter()
        for terms in documents:
            writer.add(terms)
        return cls(writer.finish(), ranks)

    def search(self, terms: Sequence[str], limit: int) -> np.ndarray:
        """Numbers of the best documents with a term of the query, at most ``limit``, best first; int32."""
        found, _ = self.scored(terms, limit)
        return found

    def scored(self, terms: Sequence[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The same with their scores, float32."""
        known = sorted(self._known(terms), key=lambda term: -term.bound)
        if not known or limit < 1:
            return np.zeros(0, np.int32), np.zeros(0, np.float32)
        search = _Search(known, self._empty_sums(), limit)
        try:
            candidates = search.candidates()
        finally:
            search.clear()
        values = search.scores(candidates)
        ranks = candidates if self._ranks is None else self._ranks[candidates]
        best = np.lexsort((ranks, -values))[:limit]
        return candidates[best], values[best]

    def _known(self, terms: Sequence[str]) -> Iterable[_Term]:
        postings = self._postings
        for text, count in Counter(terms).items():
            number = postings.terms.get(text)
            if number is None:
                continue
            start, end = int(postings.starts[number]), int(postings.starts[number + 1])
            own = weight(count, postings.filled, end - start)
            bound = float(own - own / postings.bounds[number])
            yield _Term(own, bound, postings.documents[start:end], postings.saturations[start:end])

    def _empty_sums(self) -> np.ndarray:
        """[n] float32, all 0, one for each thread; whoever changes it sets it back."""
        sums: np.ndarray | None = getattr(self._scratch, "sums", None)
        if sums is None:
            sums = self._scratch.sums = np.zeros(self._postings.size, np.float32)
        return sums
