"""The episodes of a run as one HTML file: nothing is fetched, and what was recorded is data, never markup."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import NamedTuple

from sdar.files import MB
from sdar.look.episodes import Recorded

LARGEST_PAGE = 50 * MB
"""Bytes of a page. Beyond it the oldest episodes lose the figures of their tokens, and then are left out."""

_ROOM = 200_000
"""Bytes for program, style and what is said about the run."""
_ACTIVE = re.compile("[<>&\u2028\u2029]")
_PLACES = re.compile("@(title|policy|style|about|heads|reads|texts|figures|program)@")


class Page(NamedTuple):
    """A page and what it holds: ``episodes`` shown, ``without_figures`` of them, ``left_out`` beyond the bound."""

    html: str
    episodes: int
    without_figures: int
    left_out: int


class _Entry(NamedTuple):
    """An episode as lines of JSON: what the list needs, its texts, the figures of its tokens."""

    head: str
    reads: str | None
    text: str
    figures: str
    dropped: bool = False
    """Whether it had figures, and has lost them."""


class _Kept:
    """The episodes that fit, the newest of them; a text that teachers read again and again counts once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entries: deque[_Entry] = deque()
        self.bare = 0
        """The first so many entries have lost their figures."""
        self.left_out = self.size = 0
        self._readers: dict[str, int] = {}

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        if entry.reads is not None:
            self._readers[entry.reads] = self._readers.get(entry.reads, 0) + 1
            self.size += _bytes(entry.reads) * (self._readers[entry.reads] == 1)
        self.size += sum(_bytes(line) for line in (entry.head, entry.text, entry.figures))
        while self.size > self.limit and self.bare < len(self.entries):
            old = self.entries[self.bare]
            self.entries[self.bare] = old._replace(figures="", dropped=bool(old.figures))
            self.size -= len(old.figures.encode())
            self.bare += 1
        while self.size > self.limit and self.entries:
            self._leave_out(self.entries.popleft())

    def _leave_out(self, old: _Entry) -> None:
        if old.reads is not None:
            self._readers[old.reads] -= 1
            if not self._readers[old.reads]:
                del self._readers[old.reads]
                self.size -= _bytes(old.reads)
        self.size -= sum(_bytes(line) for line in (old.head, old.text, old.figures))
        self.left_out += 1
        self.bare -= 1


def episodes_page(
    episodes: Iterable[Recorded], title: str, *, most: int = LARGEST_PAGE, damaged: Callable[[], int] = lambda: 0
) -> Page:
    """The page of these episodes, in the order in which they were played.

    Args:
        episodes: read one by one; only what fits into the page is kept in memory.
        title: of the page, the run's name.
        most: bytes of the page.
        damaged: called after the last episode; how many lines were passed over.
    """
    kept = _Kept(most - _ROOM)
    for episode in episodes:
        kept.add(_entry(episode))
    reads = {text: number for number, text in enumerate(dict.fromkeys(e.reads for e in kept.entries if e.reads))}
    without = sum(entry.dropped for entry in kept.entries)
    about = {"damaged": damaged(), "left_out": kept.left_out, "without_figures": without, "most": most}
    heads = (f"[{'-1' if e.reads is None else reads[e.reads]},{e.head[1:]}" for e in kept.entries)
    style, program = _own("page.css"), _own("page.js")
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(program)}'",
        "style": style,
        "program": program,
        "about": _data(about),
        "heads": "[" + ",\n".join(heads) + "]",
        "reads": "\n".join(reads),
        "texts": "\n".join(entry.text for entry in kept.entries),
        "figures": "\n".join(entry.figures for entry in kept.entries),
    }
    page = _PLACES.sub(lambda place: parts[place[1]], _own("page.html"))
    return Page(page, len(kept.entries), without, kept.left_out)


def _entry(episode: Recorded) -> _Entry:
    gaps = episode.gap_range()
    head = [
        episode.iteration,
        episode.played_by,
        episode.task,
        episode.task_type,
        episode.description,
        episode.member,
        episode.outcome,
        episode.end,
        episode.episode_return,
        len(episode.turns),
        *(gaps or (None, None)),
    ]
    turns = [
        [turn.observation, turn.text, turn.action, int(turn.valid), int(turn.truncated), turn.reward, turn.advantage]
        for turn in episode.turns
    ]
    siblings = [[s.member, s.outcome, s.end, s.episode_return, s.advantage, s.actions] for s in episode.siblings]
    opening = "" if turns and episode.opening in episode.turns[0].observation else episode.opening
    text = [episode.error, opening, turns, episode.last_observation, siblings]
    figures = [turn.tokens for turn in episode.turns]
    return _Entry(
        _data(head),
        None if episode.reads is None else _data(episode.reads),
        _data(text),
        _data(figures) if any(figures) else "",
    )


def _data(value: object) -> str:
    """One line of JSON that HTML reads as text, whatever is in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _bytes(line: str) -> int:
    return len(line.encode()) + 8


def _own(name: str) -> str:
    return files("sdar.look").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
