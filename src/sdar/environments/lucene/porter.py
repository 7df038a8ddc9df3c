"""Porter's stemmer as Lucene has it: the algorithm of 1980 with the two rules that its author added later.

A word [C](VC)^m[V] has the measure m: C and V are runs of consonants and vowels. y is a vowel behind a consonant; every
character but a, e, i, o, u and such a y is a consonant. Rules look at the longest of their suffixes that a word has.

Source: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, and his page on the later points of
departure: ``bli`` -> ``ble`` for ``abli`` -> ``able``, and the rule ``logi`` -> ``log`` (both in step 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

SHORTEST = 3
"""Shorter words stay as they are."""

_STEP_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = dict.fromkeys(
    [
        "al",
        "ance",
        "ence",
        "er",
        "ic",
        "able",
        "ible",
        "ant",
        "ement",
        "ment",
        "ent",
        "ion",
        "ou",
        "ism",
        "ate",
        "iti",
        "ous",
        "ive",
        "ize",
    ],
    "",
)


def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if len(word) < SHORTEST:
        return word
    word = _past_and_gerund(_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replaced(word, _STEP_2, 1)
    word = _replaced(word, _STEP_3, 1)
    word = _replaced(word, _STEP_4, 2)
    return _without_final_e(word)


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_gerund(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    base = next((word.removesuffix(end) for end in ("ed", "ing") if word.endswith(end)), word)
    if base == word or not _has_vowel(base):
        return word
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if len(base) > 1 and base[-1] == base[-2] and _is_consonant(base, len(base) - 1):
        return base if base[-1] in "lsz" else base[:-1]
    return base + "e" if _measure(base) == 1 and _is_short(base) else base


def _replaced(word: str, rules: Mapping[str, str], least: int) -> str:
    """The word with the longest suffix of the rules replaced, if what stands before it has the least measure."""
    suffix = max((end for end in rules if word.endswith(end)), key=len, default="")
    base = word.removesuffix(suffix)
    if not suffix or _measure(base) < least or (suffix == "ion" and not base.endswith(("s", "t"))):
        return word
    return base + rules[suffix]


def _without_final_e(word: str) -> str:
    if word.endswith("e"):
        base = word[:-1]
        measure = _measure(base)
        if measure > 1 or (measure == 1 and not _is_short(base)):
            word = base
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word


def _is_consonant(word: str, place: int) -> bool:
    if word[place] in "aeiou":
        return False
    return word[place] != "y" or place == 0 or not _is_consonant(word, place - 1)


def _measure(word: str) -> int:
    kinds = [_is_consonant(word, place) for place in range(len(word))]
    return sum(not before and after for before, after in pairwise(kinds))


def _has_vowel(word: str) -> bool:
    return any(not _is_consonant(word, place) for place in range(len(word)))


def _is_short(word: str) -> bool:
    """Whether it ends in consonant, vowel, consonant, the last of which is not w, x or y."""
    last = len(word) - 1
    return (
        last >= 2
        and _is_consonant(word, last)
        and not _is_consonant(word, last - 1)
        and _is_consonant(word, last - 2)
        and word[last] not in "wxy"
    )
