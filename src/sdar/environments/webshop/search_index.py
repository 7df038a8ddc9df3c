"""The shop's search engine: the ranking of the original's Lucene index, which Anserini made and searches.

Text analysis and arithmetic are those of :mod:`sdar.environments.lucene`; k1 and b are Anserini's. Products with equal
scores are ordered by their codes, as in Anserini's results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sdar.environments.lucene.analysis import EnglishAnalyzer
from sdar.environments.lucene.index import InvertedIndex


class SearchIndex:
    """Finds documents, in memory, by their terms. Documents are numbered in the given order.

    ``ids``: order of documents with equal scores; None: that in which they were given.
    """

    def __init__(self, documents: Iterable[str], ids: Sequence[str] | None = None) -> None:
        self._analyzer = EnglishAnalyzer()
        terms = map(self._analyzer.terms, documents)
        self._index = InvertedIndex.of(terms, None if ids is None else ranks(ids))

    def search(self, query: str, limit: int) -> list[int]:
        """Numbers of the best documents with a term of the query, best first."""
        return [int(number) for number in self._index.search(self._analyzer.terms(query), limit)]


def ranks(ids: Sequence[str]) -> np.ndarray:
    """[n] int32: the place of each id when they are sorted."""
    found = np.empty(len(ids), np.int32)
    found[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids), dtype=np.int32)
    return found
