"""Pictures on TensorBoard's pages: what the colours say, what is kept of a long run, and what others wrote."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import sdar.look
from sdar.callbacks.board.board import Board
from sdar.callbacks.board.canvas import HEIGHT, WIDTH, legible, length
from sdar.callbacks.board.colours import EDGES, ENDORSED, REJECTED, blend, level, rgb, shade
from sdar.callbacks.board.heat_map import GAP, STRONG, heat_maps, scale_limit
from sdar.callbacks.board.token_lists import token_lists
from sdar.callbacks.board.tokens import LINES, MOST_LETTERS, Line, Token, laid_out, strongest, token_picture
from sdar.callbacks.board.turns import MOST_COLUMNS, TurnHistory
from sdar.learning.token_table import TokenGap, TokenTable
from sdar.look.terminal import EDGES as PAGE_EDGES

PAGE = Path(sdar.look.__file__).parent
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil\u2066\x00" + "x" * 300


def picture(summary) -> Image.Image:
    return Image.open(io.BytesIO(summary.value[0].image.encoded_image_string)).convert("RGB")


def area(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have this colour, but for the last bits, which a palette costs."""
    counts = image.getcolors(WIDTH * HEIGHT)
    return sum(count for count, found in counts if max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 4)


def test_the_colours_are_those_of_the_episode_browser() -> None:
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    light = style[: style.index('[data-theme="dark"]')]
    for name, colours in (("n", REJECTED), ("p", ENDORSED)):
        assert [re.search(rf"--{name}{size}: (#\w+)", light)[1] for size in (1, 2, 3, 4)] == list(colours)
    assert [round(1000 * edge) for edge in EDGES] == list(PAGE_EDGES)


def test_levels_begin_at_their_edges() -> None:
    assert [level(gap) for gap in (0.0, 0.0099, 0.01, 0.1, 0.5, 2.0, math.inf)] == [0, 0, 1, 2, 3, 4, 4]
    assert [level(gap) for gap in (-0.0099, -0.01, -0.1, -0.5, -2.0)] == [0, -1, -2, -3, -4]
    assert level(math.nan) == 0


def test_a_scale_without_steps_goes_through_the_shades() -> None:
    assert [blend(size / 4) for size in range(-4, 5)] == [shade(size) for size in range(-4, 5)]
    assert blend(-7.0) == shade(-4)
    assert blend(math.nan) == blend(0.0) == (255, 255, 255)
    assert blend(0.125) == tuple(round((255 + part) / 2) for part in rgb(ENDORSED[0]))


FIGURE = st.one_of(st.none(), st.floats(-5, 5))


@settings(max_examples=60)
@given(st.lists(st.lists(FIGURE, min_size=3, max_size=3), min_size=1, max_size=12), st.integers(0, 5))
def test_rows_are_the_figures_of_the_iterations(seen: list[list[float | None]], first: int) -> None:
    history = TurnHistory()
    for iteration, values in enumerate(seen, first):
        history.add(iteration, {"gap_mean": values})
    rows = history.rows("gap_mean")
    played = [turn for turn in range(3) if any(values[turn] is not None for values in seen)]
    assert len(rows) == (max(played) + 1 if played else 0)
    for turn, row in enumerate(rows):
        assert row == [*[None] * first, *(values[turn] for values in seen)]


def test_a_long_run_shares_columns_and_its_checkpoint_stays_small() -> None:
    history, whole = TurnHistory(), 3000
    for iteration in range(whole):
        history.add(iteration, {"gap_mean": [float(iteration), None, math.nan], "other": [1.0, 1.0, 1.0]})
        if iteration == 1700:  # continued from here
            history = TurnHistory.restored(json.loads(json.dumps(history.state())))
    (row,) = history.rows("gap_mean")
    assert history.width == 16
    assert len(row) == math.ceil(whole / 16) <= MOST_COLUMNS
    assert row[:-1] == [16 * column + 7.5 for column in range(len(row) - 1)]
    assert len(json.dumps(history.state())) < 40_000


@pytest.mark.parametrize("state", [{}, {"turns": {"width": 1, "columns": {"gap_mean": 5}}}, {"turns": "x"}])
def test_a_state_that_cannot_be_read_ends_no_training(state: dict[str, object]) -> None:
    board = Board()
    board.load_state_dict(state)
    assert board.state_dict() == Board().state_dict()


def test_the_scale_is_round_and_single_cells_do_not_set_it() -> None:
    assert scale_limit([-0.16, 0.02]) == 0.2
    assert scale_limit([0.2, -0.2]) == 0.2
    assert scale_limit([0.0]) == 0.01
    assert scale_limit([0.03] * 99 + [-8.0]) == pytest.approx(0.05)
    assert scale_limit([3.0]) == 5.0


def test_a_cell_has_the_colour_of_its_figure() -> None:
    history = TurnHistory()
    for iteration in range(10):
        history.add(iteration, {"gap_mean": [-0.2, 0.0, 0.1, None], "strongly_gated_of_open": [0.0, 0.5, None, None]})
    gaps, shares = heat_maps(history)
    assert (gaps.value[0].tag, shares.value[0].tag) == (GAP, STRONG)
    whole = 600 * 266  # ten columns of 60 pixels
    assert picture(gaps).size == (WIDTH, HEIGHT)
    assert area(picture(gaps), blend(-1.0)) == pytest.approx(whole / 3, rel=0.03)
    assert area(picture(gaps), blend(0.5)) == pytest.approx(whole / 3, rel=0.03)
    assert area(picture(shares), blend(-1.0)) == pytest.approx(whole / 2, rel=0.03)
    assert heat_maps(TurnHistory()) == []


def test_a_token_has_the_colour_of_its_gap() -> None:
    tokens = [Token("go to ", 0.0, 0), Token("fridge", -3.0, 0), Token("microwave", 0.7, 1)]
    image = picture(token_picture("t", "put a mug in microwave", tokens))
    plain = picture(token_picture("t", "put a mug in microwave", [one._replace(gap=0.0) for one in tokens]))
    for gap, word in ((-3.0, "fridge"), (0.7, "microwave")):
        colour = shade(level(gap))
        coloured = area(image, colour) - area(plain, colour)
        assert 0.5 < coloured / (30 * length(word)) < 1  # the letters are black


TOKENS = st.lists(
    st.builds(Token, st.text("ab W\n\t\u202e你<", max_size=30), st.floats(-3, 3), st.just(0)), max_size=20
)


@settings(max_examples=60)
@given(TOKENS, TOKENS)
def test_lines_hold_every_letter_once_and_are_no_wider_than_they_may(first: list[Token], second: list[Token]) -> None:
    tokens = [*first, *(one._replace(turn=1) for one in second)]
    lines = list(laid_out(tokens, 120.0, lambda text: 9.0 * len(text)))
    assert all(9.0 * sum(len(one.text) for one in line.tokens) <= 120 for line in lines)
    assert [line.turn for line in lines] == sorted(line.turn for line in lines)
    for turn in (0, 1):
        written = "".join(one.text for line in lines if line.turn == turn for one in line.tokens)
        wanted = "".join(legible(one.text.replace("\t", " ").replace("\n", " ")) for one in tokens if one.turn == turn)
        assert written == wanted
    least = sum(abs(one.gap) for one in tokens if level(one.gap) and one.text)
    assert sum(line.opinion for line in lines) >= least - 1e-9  # the sums have different orders


def test_of_very_long_texts_the_beginning_is_looked_at() -> None:
    lines = list(laid_out([Token("\u202e" * 10**6, 1.0, 0)] * 1000, 600.0, len))
    assert sum(len(one.text) for line in lines for one in line.tokens) < 7 * MOST_LETTERS


def test_where_there_is_no_room_the_lines_with_an_opinion_are_kept_in_order() -> None:
    lines = [Line(0, [], opinion) for opinion in [0.0] * 20 + [3.0, 0.0, 1.0]]
    assert strongest(lines) == [0, 1, 2, 3, 4, 5, 6, 20, 22]
    assert strongest(lines[:3]) == [0, 1, 2]
    assert len(strongest(lines)) == LINES


def test_what_others_wrote_is_drawn_as_text_and_is_bounded() -> None:
    tokens = [Token(HOSTILE, 2.5, turn) for turn in range(40)]
    summary = token_picture("t", HOSTILE * 3000, tokens)
    assert picture(summary).size == (WIDTH, HEIGHT)
    assert len(summary.value[0].image.encoded_image_string) < 60_000
    assert legible("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\n"
    assert legible("“x” 你") == "“x” \\u4f60"  # a letter that the font lacks


def test_the_lists_of_tokens_say_how_far_and_how_often() -> None:
    table = TokenTable([TokenGap(" microwave", 12, 1.5), TokenGap(HOSTILE, 3, 0.25)], [])
    shown = token_lists(table, 7)
    assert "**Iteration 7: " in shown
    assert '      +1.500       12  " microwave"' in shown
    assert shown.index("microwave") < shown.index("<script>") < shown.index("**Rejected most**") < shown.index("none")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(shown) < 600
