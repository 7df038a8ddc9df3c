"""One iteration as a diagram: ``python scripts/draw_iteration.py docs/images/iteration.svg``.

The rollouts in it are made up; everything that they show can happen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from svg import Drawing, gap_colour

from sdar.errors import command, run_command

WIDTH = 560
LEFT, RIGHT, COLUMN = 40, 520, 232
"""Edges of the boxes, and the width of one of two columns. Outside of them run the arrows that lead far."""

WIDTHS = ((9, 16, 11), (14, 8, 14), (8, 19, 9), (12, 13, 11))
"""Of the tokens of each turn."""
ROLLOUTS: tuple[tuple[bool, tuple[tuple[int, int, int], ...]], ...] = (
    (True, ((0, 3, 0), (0, 0, 0), (2, 0, 0))),
    (False, ((0, -4, 0), (-3, 0, 0), (0, 0, 0), (0, -2, 0))),
    (False, ((0, -2, 0), (0, 3, 0), (0, 0, 0), (-3, 0, 0))),
    (True, ((0, 4, 0), (0, -2, 0), (0, 0, 0))),
)
"""A group: whether each episode succeeds, and how the teacher sees the tokens of its turns."""
STEP = 24


def drawing() -> str:
    """The diagram."""
    image = Drawing(
        WIDTH,
        "One iteration of SDAR",
        "The student plays groups of rollouts without skills. Rewards give an advantage for each turn. The teacher, "
        "the same weights with skills in the prompt, scores the same tokens; the gap between the two log-probs opens a "
        "gate for each token. The loss is the policy gradient plus lambda times gate times gap. The weights are "
        "updated and the next iteration begins. What the gaps and gates are is the curriculum in TensorBoard.",
        "python scripts/draw_iteration.py docs/images/iteration.svg",
    )
    right = RIGHT - COLUMN
    _play(image, 16)
    image.arrow((LEFT + COLUMN / 2, 192), (LEFT + COLUMN / 2, 220))
    image.arrow((right + COLUMN / 2, 192), (right + COLUMN / 2, 220))
    _rewards(image, LEFT, 220)
    _teacher(image, right, 220)
    image.arrow((LEFT + COLUMN / 2, 524), (LEFT + COLUMN / 2, 552), colour="gain")
    image.arrow((right + COLUMN / 2, 524), (right + COLUMN / 2, 552), colour="mark")
    _loss(image, 552)
    image.arrow((LEFT + COLUMN / 2, 662), (LEFT + COLUMN / 2, 690))
    _update(image, LEFT, 690)
    _board(image, right, 690)
    image.arrow((LEFT, 736), (20, 736), (20, 104), (LEFT, 104))
    image.arrow((RIGHT, 372), (540, 372), (540, 736), (RIGHT, 736), colour="mark")
    return image.document(796)


def _heading(image: Drawing, x: float, y: float, words: str) -> None:
    image.text(x, y, words, size=17, bold=True)


def _play(image: Drawing, y: float) -> None:
    """Tasks, and the group of rollouts of one of them."""
    image.box(LEFT, y, RIGHT - LEFT, 176, stroke="line", radius=8)
    _heading(image, LEFT + 14, y + 27, "The student plays, without skills")
    image.text(LEFT + 14, y + 54, "tasks", colour="faint")
    for number, task in enumerate(("heat a potato", "clean a cup", "find two pens")):
        top = y + 66 + 33 * number
        image.box(LEFT + 14, top, 122, 26, "back", "mark" if number == 0 else "line", 5, 2 if number == 0 else 1)
        image.text(LEFT + 75, top + 18, task, size=14, anchor="middle")
    image.arrow((LEFT + 137, y + 79), (LEFT + 164, y + 79))
    x = LEFT + 172
    image.text(x, y + 54, "its group of rollouts", colour="faint")
    image.text(RIGHT - 14, y + 54, "reward", colour="faint", anchor="end")
    _rows(image, x, y + 71, lambda _success, _level: ("line", None))
    for number, (success, _) in enumerate(ROLLOUTS):
        image.text(RIGHT - 14, y + 84 + STEP * number, "10" if success else "0", anchor="end", bold=success)


def _rewards(image: Drawing, x: float, y: float) -> None:
    """One figure for all tokens of a turn."""
    image.box(x, y, COLUMN, 304, stroke="line", radius=8)
    _heading(image, x + 14, y + 27, "Rewards")
    image.lines(x + 14, y + 52, ("How did each end,", "against the rest of", "its group?"))
    _rows(image, x + 14, y + 109, lambda success, _level: ("gain", None) if success else ("pale", "gain"))
    for number, (success, _) in enumerate(ROLLOUTS):
        image.text(
            x + COLUMN - 12, y + 122 + STEP * number, "+" if success else "−", anchor="end", bold=True, colour="gain"
        )
    image.lines(x + 14, y + 229, (("advantage A:"),), bold=True, colour="gain")
    image.lines(x + 14, y + 249, ("one figure for all", "tokens of a turn"))


def _teacher(image: Drawing, x: float, y: float) -> None:
    """One figure for each token."""
    image.box(x, y, COLUMN, 304, stroke="line", radius=8)
    _heading(image, x + 14, y + 27, "Teacher")
    image.lines(x + 14, y + 52, ("The same weights, with", "skills in the prompt,", "score the same tokens."))
    _rows(image, x + 14, y + 109, lambda _success, level: (gap_colour(level), None if level else "line"))
    image.text(x + 14, y + 229, ("gap", "mark"), ": one for each token", bold=True)
    left, top, width, height = x + 14, y + 244, 74, 44
    image.path(f"M{left} {top}V{top + height}H{left + width}", stroke="line", thick=1.5)
    middle = left + width / 2
    image.path(
        f"M{left + 2} {top + height - 3}C{middle - 4} {top + height - 3} {middle - 8} {top + height / 2 + 8} "
        f"{middle} {top + height / 2}S{middle + 4} {top + 3} {left + width - 2} {top + 3}",
        stroke="mark",
        thick=2.5,
    )
    image.text(left + width + 12, top + 18, "gate", bold=True, colour="mark")
    image.text(left + width + 12, top + 38, "sigmoid(β gap)")


def _loss(image: Drawing, y: float) -> None:
    """Both together."""
    image.box(LEFT, y, RIGHT - LEFT, 110, "panel", "line", 8)
    centre = WIDTH / 2
    image.text(centre, y + 32, "loss = ", ("policy gradient(A)", "gain"), size=18, bold=True, anchor="middle")
    image.text(centre, y + 60, "+ λ · ", ("gate · gap", "mark"), size=18, bold=True, anchor="middle")
    image.text(centre, y + 92, "mean over the tokens; teacher and gate are constants", size=14, anchor="middle")


def _update(image: Drawing, x: float, y: float) -> None:
    image.box(x, y, COLUMN, 90, stroke="line", radius=8)
    _heading(image, x + 14, y + 27, "Update")
    image.lines(x + 14, y + 52, ("of the one set of weights;", "on to the next iteration"))


def _board(image: Drawing, x: float, y: float) -> None:
    image.box(x, y, COLUMN, 90, stroke="line", radius=8)
    _heading(image, x + 14, y + 27, "TensorBoard")
    image.lines(x + 14, y + 52, ("the curriculum: what the", "teacher endorsed, when"))


def _rows(image: Drawing, x: float, y: float, look: Callable[[bool, int], tuple[str, str | None]]) -> None:
    """The group: a row for each rollout, its tokens turn by turn, filled and bordered as ``look`` says."""
    for row, (success, turns) in enumerate(ROLLOUTS):
        left = x
        for widths, levels in zip(WIDTHS, turns, strict=False):
            for width, level in zip(widths, levels, strict=True):
                fill, stroke = look(success, level)
                inset = 0.5 if stroke else 0
                image.box(left + inset, y + STEP * row + inset, width - 2 * inset, 16 - 2 * inset, fill, stroke)
                left += width + 2
            left += 6


@command
def main(arguments: Sequence[str]) -> int:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write")
    options = parser.parse_args(arguments)
    options.out.write_text(drawing(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
