"""Recorded episodes for a terminal of 80 columns: a list, or one episode turn by turn, its tokens coloured by gap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from sdar.look.episodes import Recorded, Tokens, Turn, strongest

WIDTH = 80
EDGES = (10, 100, 500, 2000)
"""Where a colour begins, in thousandths of a nat; those of the page."""

_REJECTED, _ENDORSED = (223, 215, 208, 172), (153, 117, 75, 32)
"""Backgrounds of 256 colours, orange and blue: people who see few colours tell these two apart."""
_MARKS = {"solved": "+", "failed": "-", "error": "!"}


def listed(episodes: Iterable[tuple[int, Recorded]]) -> Iterator[str]:
    """A line for each episode, by its number in the file."""
    yield f"{'no.':>5} {'when':<8} {'end':<10} {'return':>6} {'gaps in nats':>13}  task"
    for number, episode in episodes:
        gaps = episode.gap_range()
        ends = "" if gaps is None else f"{gaps[0] / 1000:+.2f} {gaps[1] / 1000:+.2f}"
        short = when(episode).replace("iteration", "iter.")
        line = (
            f"{number:>5} {short[:8]:<8} {episode.end[:10]:<10} {episode.episode_return:>6.4g} {ends:>13} "
            f"{_MARKS[episode.outcome]} {episode.description or episode.task}"
        )
        yield line.replace("\n", " ")[:WIDTH]


def told(episode: Recorded, *, colour: bool) -> Iterator[str]:
    """An episode, turn by turn."""
    yield from _wrapped(f"{episode.description or episode.task}", "")
    yield from _wrapped(
        f"{when(episode)}, {episode.task_type}, member {episode.member}: {episode.end}, return "
        f"{episode.episode_return:.4g}",
        "",
    )
    if episode.error:
        yield from _wrapped(f"error: {episode.error}", "  ")
    if episode.reads:
        yield "the teacher read:"
        yield from _wrapped(episode.reads, "  ")
    coloured = colour and any(turn.tokens for turn in episode.turns)
    if coloured:
        yield legend()
    for number, turn in enumerate(episode.turns, 1):
        yield ""
        yield f"[turn {number} of {len(episode.turns)}]{_figures(turn)}"
        yield from _wrapped(turn.observation, "  ")
        if coloured and turn.tokens:
            yield from _painted(turn.tokens)
            # Only the first tokens of an episode have figures.
            joined = "".join(turn.tokens.texts)
            yield from _wrapped(turn.text[len(joined) :] if turn.text.startswith(joined) else "", "> ")
        else:
            yield from _wrapped(turn.text, "> ")
        yield from _words(turn)
    yield from _wrapped(episode.last_observation, "  ")
    if episode.siblings:
        yield "\nthe other members of the group:"
        for sibling in episode.siblings:
            advantage = "" if sibling.advantage is None else f", advantage {sibling.advantage:.3g}"
            said = f"{sibling.member}: {sibling.end}, return {sibling.episode_return:.4g}{advantage}: "
            yield from _wrapped(said + "; ".join(sibling.actions), "  ")


def when(episode: Recorded) -> str:
    """In which iteration, or by whom it was played."""
    return episode.played_by or "evaluation" if episode.iteration is None else f"iteration {episode.iteration}"


def level(gap: int | None) -> int:
    """The colour of a gap in thousandths of a nat: -4 (rejected) to 4 (endorsed)."""
    size = 0 if gap is None else sum(abs(gap) >= edge for edge in EDGES)
    return -size if gap is not None and gap < 0 else size


def legend() -> str:
    """The scale, in colours."""
    below = "".join(_paint(f" -{EDGES[size - 1] / 1000:g} ", -size) for size in (4, 3, 2, 1))
    above = "".join(_paint(f" +{EDGES[size - 1] / 1000:g} ", size) for size in (1, 2, 3, 4))
    return f"gap in nats: rejects {below} 0 {above} endorses"


def _figures(turn: Turn) -> str:
    words = [] if turn.advantage is None else [f"advantage {turn.advantage:.3g}"]
    words += [f"reward {turn.reward:.4g}"] if turn.reward else []
    gaps = [gap for gap in turn.tokens.gaps() if gap is not None] if turn.tokens else []
    words += [f"mean gap {sum(gaps) / len(gaps) / 1000:+.3f}"] if gaps else []
    words += [] if turn.valid else ["not in the format"]
    words += ["cut at the length limit"] if turn.truncated else []
    return f" {', '.join(words)}" if words else ""


def _words(turn: Turn) -> Iterator[str]:
    """The strongest opinions as text, for those who see no colours."""
    for name, tokens in zip(("rejected", "endorsed"), strongest([turn], 3), strict=True):
        found = ", ".join(f"{text!r} {gap / 1000:+.2f}" for text, gap in tokens if abs(gap) >= EDGES[0])
        if found:
            yield from _wrapped(f"{name}: {found}", "  ")


def _painted(tokens: Tokens) -> Iterator[str]:
    """The response in lines of the width; a colour never runs over the end of a line."""
    line, room = "> ", WIDTH - 2
    for text, gap in zip(tokens.texts, tokens.gaps(), strict=True):
        pieces = text.replace("\t", " ").split("\n")
        for number, piece in enumerate(pieces):
            if number:
                yield line
                line, room = "> ", WIDTH - 2
            while piece:
                if len(piece) > room and room < WIDTH - 2:
                    yield line
                    line, room = "> ", WIDTH - 2
                line += _paint(piece[:room], level(gap))
                piece, room = piece[room:], room - len(piece[:room])
    yield line


def _paint(text: str, size: int) -> str:
    if size == 0:
        return text
    shade = (_REJECTED if size < 0 else _ENDORSED)[abs(size) - 1]
    return f"\x1b[48;5;{shade}m\x1b[38;5;16m{text}\x1b[0m"


def _wrapped(text: str, indent: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield from textwrap.wrap(line, WIDTH, initial_indent=indent, subsequent_indent=indent) if line.strip() else ()
