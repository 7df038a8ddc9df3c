"""What the search engines of the environments have in common with Lucene: its stop words and the order of hits."""

from __future__ import annotations

import numpy as np

_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
STOP_WORDS = frozenset(_WORDS.split())
"""Lucene's English stop words."""


def best(scores: np.ndarray, top_k: int) -> np.ndarray:
    """Indices of the ``top_k`` largest positive scores [n], largest first. Equal scores keep their order."""
    candidates = len(scores)
    if top_k < candidates:
        threshold = np.partition(scores, candidates - top_k)[candidates - top_k]
        numbers = np.flatnonzero(scores >= max(threshold, np.finfo(scores.dtype).tiny))
    else:
        numbers = np.flatnonzero(scores > 0)
    # A stable sort of the negated scores keeps the order of equal scores.
    return numbers[np.argsort(-scores[numbers], kind="stable")][:top_k]
