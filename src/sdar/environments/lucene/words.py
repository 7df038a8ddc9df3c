"""Word boundaries as Lucene's StandardTokenizer finds them.

The rules are those of Unicode's annex 29 with Lucene's additions: an emoji, with all that modifies it, is a word; so is
every Han or Hiragana character, and every run of a script that puts no blanks between words. Everything else, such as
blanks and punctuation, separates words. A word longer than 255 UTF-16 units is cut there, and the rest is read as new
text.

Source: the grammar of apache/lucene 9.5 (StandardTokenizerImpl.jflex). The classes of characters, in ``words.yaml``,
were measured on that version.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from sdar.environments.facts import facts_beside

LONGEST = 255
"""Most UTF-16 units of a word."""

_FEW = LONGEST // 2
"""Characters that cannot have more units than a word may have."""

_ASCII_UNIT = "[A-Za-z]++(?:[.:'](?=[A-Za-z]))?|[0-9]++(?:[.,;'](?=[0-9]))?"
_ASCII = re.compile(f"(_*+(?:{_ASCII_UNIT})(?:{_ASCII_UNIT}|_)*+)|_+")
"""The one group is a word. It takes no part where connectors alone are passed over, which keeps the scan linear."""

_TEXT, _EMOJI = "\ufe0e", "\ufe0f"
"""Presentation selectors."""
_JOINER = "\u200d"
_SKIN_TONES = "\U0001f3fb-\U0001f3ff"
_FLAG_LETTERS = "\U0001f1e6-\U0001f1ff"
_TAGS, _LAST_TAG = "\U000e0020-\U000e007e", "\U000e007f"
_KEYCAP = "\u20e3"


class _Grammar(NamedTuple):
    """``word``: like ``_ASCII`` for any text; ``emoji``: an emoji; ``both``: letters that are emoji, too."""

    word: re.Pattern[str]
    emoji: re.Pattern[str]
    both: re.Pattern[str]


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    grammar = None if text.isascii() else _grammar()
    if grammar is not None and grammar.both.search(text):
        return _long_words(text, grammar)
    found: list[str] = (_ASCII if grammar is None else grammar.word).findall(text)
    if max(map(len, found), default=0) > _FEW:
        return _long_words(text, grammar or _grammar())
    return list(filter(None, found))


def _long_words(text: str, grammar: _Grammar) -> list[str]:
    """The same one by one: within the most that a word can have, and the longest of two matches.

    The next word is looked for in parts of the text, as the whole rest may be one run of letters or connectors.
    """
    found: list[str] = []
    place = 0
    while place < len(text):
        end = place + 2 * LONGEST
        start = grammar.word.search(text, place, end)
        whole = len(text) if end >= len(text) else end - LONGEST  # up to here the part has all of a word
        place = whole if start is None else min(start.start(), whole)
        if place == whole or start is None:
            continue
        if start.group(1) is None:  # connectors, and nothing else as far as a word reaches that begins among the first
            place = max(place + 1, start.end() - LONGEST + 1)
            continue
        window = _window(text, place)
        match = grammar.word.match(text, place, window)
        end = place if match is None or match.group(1) is None else match.end()
        emoji = grammar.emoji.match(text, place, window) if grammar.both.match(text, place) else None
        end = max(end, emoji.end() if emoji else place)
        if end > place:
            found.append(text[place:end])
        place = max(end, place + 1)
    return found


def _window(text: str, place: int) -> int:
    """The end of the longest word that can begin at a place."""
    if text[place : place + LONGEST].isascii():
        return min(place + LONGEST, len(text))
    units = 0
    for end, character in enumerate(text[place : place + LONGEST], place):
        units += 1 + (character > "\uffff")
        if units > LONGEST:
            return end
    return min(place + LONGEST, len(text))


@cache
def _grammar() -> _Grammar:
    facts = facts_beside(__file__)
    classes = {name: _class(ranges) for name, ranges in facts.items()}
    letter, hebrew = classes["letter"] + classes["hebrew"], classes["hebrew"]
    number, katakana, emoji = classes["number"], classes["katakana"], classes["emoji"]
    with_letters, with_numbers = (classes["mid_both"] + classes[name] for name in ("mid_letter", "mid_number"))
    # A character takes along what extends it. Within an emoji a presentation selector is not part of that.
    more = f"[{classes['extend']}]*+"
    modified = f"(?:(?![{_TEXT}{_EMOJI}])[{classes['extend']}])*"

    # A Hebrew letter takes the apostrophe behind it, unless something before it has joined it already.
    joined = (
        f"(?:[{hebrew}]{more}(?:'{more}|\"{more}[{hebrew}]{more})"
        f"|(?:[{classes['letter']}]++|[{hebrew}]){more}(?:[{with_letters}]{more}[{letter}]{more})*+"
        f"|[{number}]++{more}(?:[{with_numbers}]{more}[{number}]{more})*+)++"
    )
    unit = f"(?:(?:[{katakana}]{more})++|{joined})"
    connector = f"(?:[{classes['connector']}]{more})"
    word = f"{connector}*+{unit}(?:{connector}++{unit})*+{connector}*+"

    tone, picture = f"[{_SKIN_TONES}]{modified}+", f"[{emoji}]{modified}+{_EMOJI}?"
    sequence = (
        f"(?:{_JOINER}*+{picture}|{tone})"
        f"(?:[{_TAGS}]++{_LAST_TAG}|(?:{_JOINER}*+(?<={_JOINER}){picture}|{_JOINER}{tone})*+)"
    )
    flag = f"(?:[{_FLAG_LETTERS}]{more}){{2}}"
    keycap = f"[#*]{modified}{_EMOJI}?{_KEYCAP}{modified}"
    south_east_asian = f"(?:[{classes['south_east_asian']}]{more})++"
    choices = "|".join((word, sequence, flag, keycap, south_east_asian, f"[{classes['alone']}]{more}"))
    both = "".join(map(chr, sorted(_members(facts["emoji"]) & _members(facts["letter"]))))
    return _Grammar(
        re.compile(f"({choices})|[{classes['connector']}]++"), re.compile(sequence), re.compile(f"[{both}]")
    )


def _ends(ranges: str) -> list[tuple[int, int]]:
    """First and last code point of ranges of hexadecimal numbers."""
    parts = (part.split("-") for part in ranges.split())
    return [(int(ends[0], 16), int(ends[-1], 16)) for ends in parts]


def _class(ranges: str) -> str:
    """The inside of a character class."""
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in _ends(ranges))


def _members(ranges: str) -> set[int]:
    return {code for first, last in _ends(ranges) for code in range(first, last + 1)}
