"""What the teacher thinks: the curriculum by method, by turn, by the sign of the advantage, by part of the response."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sdar.compare.reporting.bands import mean_by_key
from sdar.compare.reporting.blocks import Block, Pictures, Table
from sdar.compare.reporting.collection import Group
from sdar.compare.reporting.curves import Figures, curve_pictures, turn_pictures
from sdar.compare.reporting.history import History
from sdar.compare.reporting.tabulating import DASH, cells, course, mean, over_training

CURRICULUM = (
    Figures.of_tag("curriculum/strongly_gated_fraction", "Strongly gated tokens", "share, %", 100, (0, 100)),
    Figures.of_tag("curriculum/gap_mean", "Mean gap, teacher minus student", "nats"),
    Figures.of_tag("curriculum/open_fraction", "Open tokens: gap beyond 0.01", "share, %", 100, (0, 100)),
    Figures.of_tag("curriculum/endorsed_of_open", "Endorsed among the open", "share, %", 100, (0, 100)),
)
SIGNS = ("positive", "negative", "zero")
"""Of the advantage, as the tags name them."""
RESPONSE_PARTS = ("thought", "action", "tags", "other")
"""Of a response, as the tags name them."""
WHERE = (
    *(
        Figures.of_tag(f"curriculum/by_advantage/{sign}/gap_mean", f"Gap where the advantage is {sign}", "nats")
        for sign in SIGNS[:2]
    ),
    *(
        Figures.of_tag(f"curriculum/by_part/{part}/gap_mean", f"Gap in the response: {part}", "nats")
        for part in RESPONSE_PARTS[:2]
    ),
)
"""Those of the tokens that say something: zero advantages teach nothing, and tags are forced."""


def curriculum(group: Group, draw: bool) -> list[Block]:
    """The section; [] where no teacher was scored."""
    blocks = course(group, CURRICULUM, draw)
    turns = _by_turn(group)
    if turns and draw:
        blocks.append(Pictures(tuple(turn_pictures(group))))
    return [*blocks, *turns, *_where(group, draw)]


def _by_turn(group: Group) -> list[Block]:
    found = {method: mean_by_key([_turn_means(run) for run in group.of(method).values()]) for method in group.methods}
    turns = sorted({turn for means in found.values() for turn in means})
    rows = tuple((method, *cells(means, turns, "+.3f")) for method, means in found.items() if means)
    caption = "Mean gap by turn over all of training, nats, mean over seeds; turns count from 0"
    return [Table(("method",), tuple(f"turn {turn}" for turn in turns), rows, caption)] if rows else []


def _turn_means(run: History) -> dict[str, float]:
    return {turn: mean(list(curve.values())) for turn, curve in run.gap_by_turn.items()}


def _where(group: Group, draw: bool) -> list[Block]:
    """The gap by the sign of the advantage, and by part of the response."""
    gaps = {f"advantage {sign}": f"curriculum/by_advantage/{sign}/gap_mean" for sign in SIGNS}
    by_sign = over_training(group, gaps, "+.3f")
    columns = {part: f"curriculum/by_part/{part}/gap_mean" for part in RESPONSE_PARTS}
    by_part = over_training(group, columns, "+.3f")
    opens = {f"{part}, open": f"curriculum/by_part/{part}/open_fraction" for part in RESPONSE_PARTS}
    shares = over_training(group, opens, ".1%")
    blocks: list[Block] = []
    if draw and (pictures := curve_pictures(group, WHERE)):
        blocks.append(Pictures(tuple(pictures)))
    over = "over all of training, mean over seeds"
    if by_sign:
        caption = (
            f"Mean gap by the sign of the advantage, nats, {over}. Positive below negative: what earns reward is what "
            "the teacher rejects"
        )
        blocks.append(Table(("method",), tuple(gaps), by_sign, caption))
    if by_part:
        rows = [(*row, *_beside(shares, row[0], len(opens))) for row in by_part]
        caption = (
            "Mean gap by part of the response, nats, and the share of its tokens that are open (gap beyond 0.01), "
            f"{over}"
        )
        blocks.append(Table(("method",), (*columns, *opens), tuple(rows), caption))
    return blocks


def _beside(rows: Iterable[tuple[str, ...]], method: str, count: int) -> Sequence[str]:
    return next((row[1:] for row in rows if row[0] == method), (DASH,) * count)
