"""The episodes of a run as one HTML file: nothing is fetched, and what was recorded is data, never markup."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple

from sdar.files import MB
from sdar.look.episodes import Recorded

LARGEST_PAGE = 50 * MB
"""Bytes of a page. Beyond it the oldest episodes lose the figures of their tokens, and then are left out."""
PLAIN = 4 * MB
"""Bytes of the newest episodes that are not compressed."""
_BLOCK = 100
"""Episodes that are compressed together, at most; one of them is not to be had without the others."""

_ROOM = 200_000
"""Bytes for program, style and what is said about the run."""
_ACTIVE = re.compile("[<>&\u2028\u2029]")
_PLACES = re.compile("@(title|policy|style|about|heads|reads|texts|figures|packed|program)@")


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

    @property
    def size(self) -> int:
        """Bytes, but for what the teacher read."""
        return sum(_bytes(line) for line in (self.head, self.text, self.figures))


class _Block:
    """Episodes that are compressed together: what the list needs of each, their texts, and the figures of tokens."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.heads = [(entry.head, entry.reads) for entry in entries]
        self.coloured = sum(bool(entry.figures) for entry in entries)
        self.texts = _packed(entry.text for entry in entries)
        self.figures = _packed(entry.figures for entry in entries)
        self.dropped = sum(entry.dropped for entry in entries)

    @property
    def size(self) -> int:
        return sum(_bytes(head) for head, _ in self.heads) + len(self.texts) + len(self.figures) + 16

    def drop(self) -> None:
        """Lose the figures."""
        self.figures = _packed("" for _ in self.heads)
        self.dropped += self.coloured
        self.coloured = 0


class _Kept:
    """The episodes that fit, the newest of them; a text that teachers read again and again counts once."""

    def __init__(self, limit: int, plain: int) -> None:
        self.limit, self.plain = limit, plain
        self.blocks: deque[_Block] = deque()
        self.entries: deque[_Entry] = deque()
        """Those that came after the ones in the blocks."""
        self.left_out = 0
        self._bare_blocks = self._bare = 0
        """The first so many blocks, and entries, have lost their figures."""
        self._size = self._open = 0
        """Bytes of everything, and of the entries."""
        self._readers: dict[str, int] = {}

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self._open += entry.size
        self._size += entry.size + self._read(entry.reads)
        while self._open > self.plain and len(self.entries) > 1:
            self._pack()
        while self._size > self.limit and self._bare_blocks < len(self.blocks):
            self._change(self.blocks[self._bare_blocks])
            self._bare_blocks += 1
        while self._size > self.limit and self._bare < len(self.entries):
            old = self.entries[self._bare]
            bare = self.entries[self._bare] = old._replace(figures="", dropped=bool(old.figures))
            self._open -= old.size - bare.size
            self._size -= old.size - bare.size
            self._bare += 1
        while self._size > self.limit and self.blocks:
            old_block = self.blocks.popleft()
            self._bare_blocks -= 1
            self._leave_out(old_block.size, [reads for _, reads in old_block.heads])
        while self._size > self.limit and self.entries:
            old = self.entries.popleft()
            self._bare -= 1
            self._open -= old.size
            self._leave_out(old.size, [old.reads])

    @property
    def heads(self) -> Iterator[tuple[str, str | None]]:
        """What the list needs of every episode, and what the teacher read of it."""
        for block in self.blocks:
            yield from block.heads
        yield from ((entry.head, entry.reads) for entry in self.entries)

    @property
    def without_figures(self) -> int:
        return sum(block.dropped for block in self.blocks) + sum(entry.dropped for entry in self.entries)

    def _pack(self) -> None:
        """Compress the oldest entries."""
        taken: list[_Entry] = []
        before = 0
        while len(self.entries) > 1 and len(taken) < _BLOCK and before <= self.plain / 2:
            taken.append(self.entries.popleft())
            before += taken[-1].size
        block = _Block(taken)
        if self._bare_blocks == len(self.blocks) and self._bare >= len(taken):
            self._bare_blocks += 1
        self._bare = max(0, self._bare - len(taken))
        self.blocks.append(block)
        self._open -= before
        self._size -= before - block.size

    def _change(self, block: _Block) -> None:
        before = block.size
        block.drop()
        self._size -= before - block.size

    def _read(self, reads: str | None) -> int:
        """Note a reader; the bytes that are new."""
        if reads is None:
            return 0
        self._readers[reads] = self._readers.get(reads, 0) + 1
        return _bytes(reads) * (self._readers[reads] == 1)

    def _leave_out(self, size: int, readers: Iterable[str | None]) -> None:
        self._size -= size
        for reads in readers:
            self.left_out += 1
            if reads is not None:
                self._readers[reads] -= 1
                if not self._readers[reads]:
                    del self._readers[reads]
                    self._size -= _bytes(reads)


def episodes_page(
    episodes: Iterable[Recorded],
    title: str,
    *,
    most: int = LARGEST_PAGE,
    plain: int = PLAIN,
    damaged: Callable[[], int] = lambda: 0,
) -> Page:
    """The page of these episodes, in the order in which they were played.

    Args:
        episodes: read one by one; only what fits into the page is kept in memory.
        title: of the page, the run's name.
        most: bytes of the page.
        plain: bytes of the newest episodes that are not compressed; a browser reads these at once.
        damaged: called after the last episode; how many lines were passed over.
    """
    kept = _Kept(most - _ROOM, plain)
    for episode in episodes:
        kept.add(_entry(episode))
    listed = list(kept.heads)
    reads = {text: number for number, text in enumerate(dict.fromkeys(text for _, text in listed if text))}
    about = {
        "damaged": damaged(),
        "left_out": kept.left_out,
        "without_figures": kept.without_figures,
        "most": most,
        "blocks": [len(block.heads) for block in kept.blocks],
    }
    heads = (f"[{'-1' if text is None else reads[text]},{head[1:]}" for head, text in listed)
    style, program = _own("page.css"), _own("page.js")
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(program)}'",
        "style": style,
        "program": program,
        "about": _data(about),
        "heads": "[" + ",\n".join(heads) + "]",
        "reads": "\n".join(reads),
        "packed": "\n".join(f"{block.texts} {block.figures}" for block in kept.blocks),
        "texts": "\n".join(entry.text for entry in kept.entries),
        "figures": "\n".join(entry.figures for entry in kept.entries),
    }
    page = _PLACES.sub(lambda place: parts[place[1]], _own("page.html"))
    return Page(page, len(listed), kept.without_figures, kept.left_out)


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


def _packed(lines: Iterable[str]) -> str:
    """Lines, compressed (zlib) and in letters (base64)."""
    return base64.b64encode(zlib.compress("\n".join(lines).encode())).decode()


def _own(name: str) -> str:
    return files("sdar.look").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
