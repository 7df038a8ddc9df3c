"""Scores of an answer: exact match, F1 and substring match after normalization.

The normalization is SQuAD's, as in Search-R1 and the released code of arXiv 2605.15155: lower case, no ASCII
punctuation, no articles, single spaces. The order matters: an article that only appears without the punctuation is
dropped.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """The normalized form, in which answers are compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golden: Sequence[str]) -> float:
    """1 if the answer equals one of the golden answers after normalization, else 0."""
    given = normalise(answer)
    return float(any(given == normalise(gold) for gold in golden))


def substring_match(answer: str, golden: Sequence[str]) -> float:
    """1 if a golden answer occurs in the answer after normalization, else 0. Empty golden answers do not count."""
    given = normalise(answer)
    return float(any(gold in given for gold in map(normalise, golden) if gold))


def f1_score(answer: str, golden: Sequence[str]) -> float:
    """The best word-level F1 over the golden answers, in [0, 1]. It is 1 for two texts without a word."""
    return max((_f1(normalise(answer).split(), normalise(gold).split()) for gold in golden), default=0.0)


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))


NO_ANSWER: Mapping[str, float] = {"exact_match": 0.0, "f1": 0.0, "substring_match": 0.0}
"""Scores of an episode without an answer."""


def scores(answer: str, golden: Sequence[str]) -> dict[str, float]:
    """All three scores by name."""
    return {
        "exact_match": exact_match(answer, golden),
        "f1": f1_score(answer, golden),
        "substring_match": substring_match(answer, golden),
    }
