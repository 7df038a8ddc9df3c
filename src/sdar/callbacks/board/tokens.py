"""The responses of an episode as a picture, every token in the colour of its gap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tensorboard.compat.proto.summary_pb2 import Summary

from sdar.callbacks.board.canvas import HEIGHT, LARGE, SMALL, SOFT, WIDTH, Canvas, fitting, legible, length
from sdar.callbacks.board.colours import EDGES, level, shade
from sdar.learning.prepared import Prepared
from sdar.objective.tokens import gap

MOST_TOKENS = 2000
"""Tokens of an episode that are looked at: the first ones."""
MOST_LETTERS = 12_000
"""Letters of these, escapes included; the token that goes beyond them is the last one."""
LINES = 9
"""Lines of a picture."""

_LEFT, _TOP, _STEP = 52, 66, 35
_MEASURE = WIDTH - _LEFT - 14
_BOX = 58


class Token(NamedTuple):
    """A sampled token: its text as others wrote it, its gap in nats, and its turn, counted from 0."""

    text: str
    gap: float
    turn: int


@dataclass
class Line:
    """Tokens, or pieces of them, that stand on one line of a picture; ``opinion``: sum of their absolute gaps."""

    turn: int
    tokens: list[Token] = field(default_factory=list)
    opinion: float = 0.0


def episode_tokens(prepared: Prepared, position: int, text: Callable[[int], str]) -> list[Token]:
    """The first tokens of an episode; [] if no teacher was scored.

    Args:
        prepared: the iteration.
        position: of the episode.
        text: gives the text of a token's id.
    """
    batch = prepared.batch
    if batch.teacher_log_probs is None or batch.old_log_probs is None:
        return []
    rows = batch.episode_index == position
    mask = batch.response_mask[rows]
    teacher, student = batch.teacher_log_probs[rows][mask], batch.old_log_probs[rows][mask]
    kept = slice(MOST_TOKENS)
    ids, turns = batch.ids[rows][mask][kept].tolist(), batch.turn_index[rows][mask][kept].tolist()
    gaps = gap(teacher, student)[kept].tolist()
    return [Token(text(token), size, turn) for token, size, turn in zip(ids, gaps, turns, strict=True)]


def token_picture(tag: str, title: str, tokens: Sequence[Token]) -> Summary:
    """The lines of an episode that there is room for; where there are more, those with the strongest opinions.

    Args:
        tag: of the picture.
        title: a text of others.
        tokens: of the episode; one at least.
    """
    canvas = Canvas()
    canvas.text(16, 26, fitting(title, WIDTH - 32, LARGE), LARGE)
    lines = list(laid_out(tokens, _MEASURE, length))
    before = None
    for row, number in enumerate(strongest(lines)):
        line, y, x = lines[number], _TOP + row * _STEP, float(_LEFT)
        if before is not None and number > before + 1:
            _leave_out(canvas, y - _STEP / 2)
        if before is None or line.turn != lines[before].turn:
            canvas.text(_LEFT - 12, y, str(line.turn + 1), colour=SOFT, align="r")
        for token in line.tokens:
            width = length(token.text)
            if level(token.gap):
                canvas.box(x, y - _STEP / 2 + 3, width, _STEP - 5, shade(level(token.gap)))
            canvas.text(x, y, token.text)
            x += width
        before = number
    _legend(canvas, "; dotted: lines left out" if len(lines) > LINES else "")
    return canvas.summary(tag)


def laid_out(tokens: Iterable[Token], width: float, measure: Callable[[str], float]) -> Iterator[Line]:
    """Lines no wider than ``width``. A turn begins a line, and so does what follows a line feed, which is a space."""
    line, room, letters = Line(-1), 0.0, 0
    for token in tokens:
        if letters > MOST_LETTERS:
            break
        if token.turn != line.turn:
            if line.tokens:
                yield line
            line, room = Line(token.turn), width
        parts = legible(token.text[:MOST_LETTERS]).replace("\t", " ").split("\n")
        letters += sum(map(len, parts))
        for number, part in enumerate(parts):
            for piece in _pieces(part + (" " if number < len(parts) - 1 else ""), width, measure):
                if (wide := measure(piece)) > room and line.tokens:
                    yield line
                    line, room = Line(token.turn), width
                line.tokens.append(token._replace(text=piece))
                line.opinion += abs(token.gap) if level(token.gap) else 0.0
                room -= wide
            if number < len(parts) - 1:
                yield line
                line, room = Line(token.turn), width
    if line.tokens:
        yield line


def strongest(lines: Sequence[Line], most: int = LINES) -> list[int]:
    """Which lines are shown, in their order: those with the strongest opinions, and of equal ones the first."""
    order = sorted(range(len(lines)), key=lambda number: (-lines[number].opinion, number))
    return sorted(order[:most])


def _pieces(text: str, width: float, measure: Callable[[str], float]) -> Iterator[str]:
    """A text in pieces that fit on a line."""
    while text and (wide := measure(text)) > width:
        end = max(1, int(len(text) * width / wide) - 1)
        yield text[:end]
        text = text[end:]
    if text:
        yield text


def _leave_out(canvas: Canvas, y: float) -> None:
    for x in range(_LEFT, WIDTH - 14, 14):
        canvas.line(x, y, 5, 0, SOFT)


def _legend(canvas: Canvas, more: str) -> None:
    canvas.text(WIDTH / 2, HEIGHT - 60, f"gap: teacher minus student log-prob, nats{more}", SMALL - 2, SOFT, "m")
    sizes = range(-len(EDGES), len(EDGES) + 1)
    y, left = HEIGHT - 42, (WIDTH - _BOX * len(sizes)) / 2
    for place, size in enumerate(sizes):
        name = f"{'-' if size < 0 else '+'}{EDGES[abs(size) - 1]:g}" if size else "0"
        canvas.box(left + place * _BOX, y, _BOX - 3, 30, shade(size))
        canvas.text(left + (place + 0.5) * _BOX - 1, y + 15, name, SMALL - 2, align="m")
    canvas.text(left - 8, y + 15, "rejects", SMALL - 2, SOFT, "r")
    canvas.text(left + _BOX * len(sizes) + 4, y + 15, "endorses", SMALL - 2, SOFT)
