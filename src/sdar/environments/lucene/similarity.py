"""Lucene's BM25 in its own arithmetic: 32-bit numbers, and lengths of documents that are kept in one byte.

    score(q, d) = sum over terms t of q  w_t - w_t / (1 + tf(t, d) / (k1 (1 - b + b |d| / avgdl)))
    w_t = (how often t is in q) * ln(1 + (N - n_t + 0.5) / (n_t + 0.5))

N counts documents with a term, avgdl is their mean length before it is rounded. The sum is of 64-bit numbers, and is
rounded to 32 bits at the end.

Source: apache/lucene 9.5 (BM25Similarity, SmallFloat); k1 0.9 and b 0.4 are Anserini's.
"""

from __future__ import annotations

import math

import numpy as np

K1, B = np.float32(0.9), np.float32(0.4)

_EXACT = 24
"""Lengths below this are kept as they are; the others as four significant bits above it."""
_BITS = 4


def kept_lengths(lengths: np.ndarray) -> np.ndarray:
    """What is left of lengths [n] int, at least 0, when they are kept in one byte: [n] int64, never larger."""
    lengths = np.asarray(lengths, np.int64)
    over = np.maximum(lengths - _EXACT, 0)
    shift = np.maximum(np.frexp(over.astype(np.float64))[1] - _BITS, 0)
    return np.where(lengths < _EXACT, lengths, _EXACT + ((over >> shift) << shift))


def length_factors(lengths: np.ndarray) -> np.ndarray:
    """1 / (k1 (1 - b + b |d| / avgdl)) of each document [n] float32, from lengths [n] in terms."""
    documents = int(np.count_nonzero(lengths))
    if documents == 0:
        return np.ones(len(lengths), np.float32)
    average = np.float32(int(np.sum(lengths, dtype=np.int64)) / documents)
    kept = kept_lengths(lengths).astype(np.float32)
    factors: np.ndarray = np.float32(1) / (K1 * ((np.float32(1) - B) + B * kept / average))
    return factors


def saturation(frequencies: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """1 + tf times the document's factor [n] float32: what a weight is divided by."""
    found: np.ndarray = np.float32(1) + frequencies.astype(np.float32) * factors
    return found


def weight(count: int, documents: int, containing: int) -> np.float32:
    """W of a term that is ``count`` times in the query and in ``containing`` of ``documents`` documents."""
    return np.float32(count) * np.float32(math.log(1 + (documents - containing + 0.5) / (containing + 0.5)))
