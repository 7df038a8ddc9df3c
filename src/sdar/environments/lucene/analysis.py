"""Text to index terms, as Anserini's default analyzer for English does it.

That is Lucene's StandardTokenizer, EnglishPossessiveFilter, LowerCaseFilter, StopFilter and PorterStemFilter, in this
order (castorini/anserini, DefaultEnglishAnalyzer).
"""

from __future__ import annotations

from array import array
from itertools import chain
from sys import byteorder

from sdar.environments.lucene import STOP_WORDS
from sdar.environments.lucene.porter import stem
from sdar.environments.lucene.words import words

_POSSESSIVE = tuple(apostrophe + s for apostrophe in "'\u2019\uff07" for s in "sS")
_KEPT, _LONGEST = 1 << 19, 64
"""Pieces of text whose terms are kept, and the longest of them in characters; most pieces are frequent."""


class EnglishAnalyzer:
    """Text analysis. It keeps the terms of pieces of text that it has met."""

    def __init__(self) -> None:
        self._known = _Known()

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order; stop words have none."""
        return list(chain.from_iterable(map(self._known.__getitem__, text.split(" "))))


class _Known(dict[str, tuple[str, ...]]):
    """The terms of pieces without a blank, which no word contains."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        found = tuple(term for term in map(_term, words(piece)) if term is not None)
        if len(piece) <= _LONGEST:
            if len(self) >= _KEPT:
                self.clear()
            self[piece] = found
        return found


def _term(word: str) -> str | None:
    """The term of a word; None for a stop word."""
    if len(word) > 1 and word.endswith(_POSSESSIVE):
        word = word[:-2]
    word = _lower(word)
    if word in STOP_WORDS:
        return None
    return stem(word) if word.isascii() else _joined(stem(_split(word)))


def _split(word: str) -> str:
    """UTF-16 units as characters, which Java's stemmer counts."""
    return "".join(map(chr, array("H", word.encode(f"utf-16-{byteorder[0]}e", "surrogatepass"))))


def _joined(units: str) -> str:
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _lower(word: str) -> str:
    """Lower case character by character, as Java does it: no final sigma, and one letter for I with a dot."""
    return word.lower() if word.isascii() else "".join("i" if letter == "\u0130" else letter.lower() for letter in word)
