"""A recorded response with its tokens shaded by gap: ``python scripts/picture_response.py RUN OUT.svg``.

RUN is the folder of a run that recorded gaps, or its ``episodes.jsonl``. Without ``--episode`` and ``--turn`` it is the
response with the most coloured tokens. ``--reads TEXT`` quotes this part of what the teacher read.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from svg import Drawing, gap_colour

from sdar.errors import UserError, command, run_command
from sdar.look.episodes import Recorded, Tokens, Turn, episodes_file, read_episodes
from sdar.look.terminal import EDGES, level, when

WIDTH, MARGIN = 560, 20
SIZE, CHARACTER = 16, 9.6
"""Of the response's letters, and how much room each takes."""
COLUMNS = int((WIDTH - 2 * MARGIN) / CHARACTER)
LINE, LABEL = 44, 6.8
"""Between lines of the response with gaps below; the room of a digit of these."""
LOUD = EDGES[1]
"""Thousandths of a nat from which a gap is written down, and its token counts as coloured."""
MOST_LINES, SEEN_LINES, WORDS = 24, 3, 60
"""Lines of a response and of an observation; letters of a line that is not the response."""


class Piece(NamedTuple):
    """What of a token stands on one line: its first column, its gap in thousandths of a nat, whether it begins here."""

    column: int
    text: str
    gap: int | None
    first: bool


def picture(episode: Recorded, turns: Sequence[int], quote: str, source: str) -> str:
    """The file. ``turns`` count from 1; each must have figures."""
    name = episode.description or episode.task
    image = Drawing(
        WIDTH,
        f"A response shaded by gap: {name[:100]}",
        "Each token of a response has the colour of its gap, teacher minus student log-prob in nats: blue what the "
        "teacher endorses once it has read the skills, orange what it rejects.",
        source,
    )
    y = image.lines(MARGIN, 34, _wrapped(name, 48, 3), 24, size=18, bold=True)
    y = image.lines(MARGIN, y, _wrapped(f"{when(episode)}, {episode.outcome}", WORDS, 2), size=14, colour="faint")
    if quote:
        y = _passage(image, y, "the teacher alone has read", _wrapped(f"... {quote} ...", WORDS, 6))
    for number in turns:
        turn = episode.turns[number - 1]
        assert turn.tokens is not None
        told = "" if turn.advantage is None else f"; advantage {turn.advantage:+.2f}"
        seen = _wrapped(turn.observation.strip().split("\n")[-1], WORDS, SEEN_LINES)
        y = _passage(image, y, f"turn {number} of {len(episode.turns)}{told}", seen)
        y = _response(image, y - 6, turn.tokens)
    y = _legend(image, y + 6)
    return image.document(y)


def _passage(image: Drawing, y: float, title: str, lines: Sequence[str]) -> float:
    image.text(MARGIN, y + 10, title, size=14, bold=True, colour="mark")
    return image.lines(MARGIN, y + 30, lines, size=14)


def _response(image: Drawing, y: float, tokens: Tokens) -> float:
    """The tokens in lines, those with an opinion on their colour; the bottom."""
    lines = list(_laid(tokens))
    shown = lines[:MOST_LINES]
    steps = [LINE if any(_loud(piece) for piece in pieces) else LINE - 16 for pieces in shown]
    image.box(MARGIN - 8, y, WIDTH - 2 * MARGIN + 16, sum(steps) + 10, radius=6)
    y += 27
    for pieces, step in zip(shown, steps, strict=True):
        for piece in pieces:
            _token(image, y, piece)
        _labels(image, y, filter(_loud, pieces))
        y += step
    y += -27 + 10
    if len(lines) > len(shown):
        image.text(MARGIN, y + 18, f"{len(lines) - len(shown)} more lines", size=14, colour="faint")
        y += 24
    return y + 20


def _token(image: Drawing, y: float, piece: Piece) -> None:
    size = level(piece.gap)
    x, width = MARGIN + CHARACTER * piece.column, CHARACTER * _columns(piece.text)
    if size:
        image.box(x, y - 17, width, 23, gap_colour(size))
    words = piece.text.strip(" ")
    if words:
        x += CHARACTER * (len(piece.text) - len(piece.text.lstrip(" ")))
        room = CHARACTER * _columns(words)
        image.text(x, y, words, size=SIZE, colour="on" if size else "ink", mono=True, width=room)


def _loud(piece: Piece) -> bool:
    """Whether its gap is written down."""
    return piece.gap is not None and abs(piece.gap) >= LOUD and piece.first


def _labels(image: Drawing, y: float, pieces: Iterable[Piece]) -> None:
    """The gaps below their tokens, the loudest first; one that would touch another is left out."""
    taken: list[tuple[float, float]] = []
    for piece in sorted(pieces, key=lambda one: -abs(one.gap or 0)):
        words = f"{(piece.gap or 0) / 1000:+.2f}".replace("-", "−")
        room = LABEL * len(words) / 2 + 4
        middle = MARGIN + CHARACTER * (piece.column + _columns(piece.text) / 2)
        middle = min(max(middle, MARGIN + room), WIDTH - MARGIN - room)
        if all(middle + room <= left or middle - room >= right for left, right in taken):
            taken.append((middle - room, middle + room))
            image.text(middle, y + 21, words, size=13, anchor="middle", bold=True)


def _laid(tokens: Tokens) -> Iterator[list[Piece]]:
    """Lines of pieces. A token goes on in the next line where it does not fit; a line feed is shown, and ends one."""
    line: list[Piece] = []
    column = 0
    for text, gap in zip(tokens.texts, tokens.gaps(), strict=True):
        first = True
        for number, rest in enumerate(text.replace("\t", " ").replace("\n", "↵\n").split("\n")):
            if number:
                yield line
                line, column = [], 0
            while rest:
                needed, room = _columns(rest), COLUMNS - column
                if needed > room and column and (needed <= COLUMNS or room < 10):
                    yield line
                    line, column, room = [], 0, COLUMNS
                cut = _fitting(rest, room)
                line.append(Piece(column, rest[:cut], gap, first))
                column += _columns(rest[:cut])
                rest, first = rest[cut:], False
                if rest:
                    yield line
                    line, column = [], 0
    if line:
        yield line


def _fitting(text: str, room: int) -> int:
    """How many characters fit into so many columns, at least one."""
    used = 0
    for number, character in enumerate(text):
        used += _columns(character)
        if used > room:
            return max(number, 1)
    return len(text)


def _columns(text: str) -> int:
    """Of a terminal's: Chinese and its like take two, accents of their own none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _wrapped(text: str, width: int, most: int) -> list[str]:
    return textwrap.wrap(text, width, max_lines=most, placeholder=" ...")


def _legend(image: Drawing, y: float) -> float:
    """The scale; the bottom of the picture."""
    values = [-edge for edge in reversed(EDGES)] + [0] + list(EDGES)
    room = (WIDTH - 2 * MARGIN) / len(values)
    image.text(MARGIN, y, "teacher rejects", size=14, bold=True)
    image.text(WIDTH / 2, y, "gap in nats", size=14, colour="faint", anchor="middle")
    image.text(WIDTH - MARGIN, y, "teacher endorses", size=14, anchor="end", bold=True)
    for number, value in enumerate(values):
        size, left = level(value), MARGIN + room * number
        image.box(left + 1, y + 9, room - 2, 24, gap_colour(size), None if size else "line")
        words = f"{value / 1000:+g}".replace("-", "−") if value else "0"
        image.text(left + room / 2, y + 26, words, size=14, colour="on" if size else "ink", anchor="middle")
    return y + 33 + MARGIN


def coloured(turn: Turn) -> tuple[int, int]:
    """How many tokens have a loud gap, and how loud they are together; none counts more than two nats."""
    gaps = [abs(gap) for gap in turn.tokens.gaps() if gap is not None] if turn.tokens else []
    loud = [min(gap, EDGES[-1]) for gap in gaps if gap >= LOUD]
    return len(loud), sum(loud)


def chosen(run: Path, number: int | None, turns: Sequence[int]) -> tuple[Recorded, list[int]]:
    """The episode and its turns, both counted from 1. UserError: there is no such response, or it has no figures."""
    best: tuple[tuple[int, int], Recorded, int] | None = None
    for place, episode in enumerate(read_episodes(episodes_file(run)), 1):
        if number not in (None, place):
            continue
        for index, turn in enumerate(episode.turns, 1):
            if turn.tokens and (not turns or index in turns) and (best is None or coloured(turn) > best[0]):
                best = coloured(turn), episode, index
    if best is None:
        words = [] if number is None else [f"--episode {number}"]
        words += [f"--turn {' '.join(map(str, turns))}"] if turns else []
        asked = " ".join(words) or "any response"
        raise UserError(f"RUN must have recorded gaps of tokens, got {run}, which has none for {asked}")
    missing = [turn for turn in turns if not 0 < turn <= len(best[1].turns) or best[1].turns[turn - 1].tokens is None]
    if missing:
        raise UserError(f"--turn must be turns with recorded gaps, of {len(best[1].turns)}, got {missing[0]}")
    return best[1], list(turns) or [best[2]]


def _said(options: argparse.Namespace) -> list[str]:
    """The choices, as they are typed."""
    words = [] if options.episode is None else ["--episode", str(options.episode)]
    words += ["--turn", *map(str, options.turn)] if options.turn else []
    return [*words, "--reads", options.reads] if options.reads else words


@command
def main(arguments: Sequence[str]) -> int:
    """Find the response, draw it, save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--episode", type=int, metavar="N", help="its number in the list of 'sdar episodes'")
    parser.add_argument("--turn", type=int, nargs="+", default=[], metavar="N", help="one turn, or several to show")
    parser.add_argument("--reads", default="", metavar="TEXT", help="quoted from what the teacher read")
    options = parser.parse_args(arguments)
    episode, turns = chosen(options.run, options.episode, options.turn)
    if options.reads not in (episode.reads or ""):
        raise UserError(f"--reads must be part of what the teacher read, got {options.reads!r}")
    source = shlex.join(["python", "scripts/picture_response.py", "RUN", options.out.name, *_said(options)])
    options.out.write_text(picture(episode, turns, options.reads, source), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
