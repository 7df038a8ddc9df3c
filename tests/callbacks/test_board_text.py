"""Texts of others on TensorBoard's text page are shown as text."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorboard.plugin_util import markdown_to_safe_html

from sdar.callbacks.board.episodes import episode_page
from sdar.callbacks.board.text import LONGEST, WIDTH, block
from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.output.printable import printable

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![picture](http://example.invalid/a.png) [link](http://example.invalid)",
    "```\n</code></pre><script>x</script>\n```",
    "~~~\n# heading\n~~~",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "<!-- <?php <![CDATA[ &amp; &#60;",
    "\x1b[31mred\x07 \u202eback\u202c \r\nnext\x00\x02end\x03",
    "    indented\n\n\n- list\n\tTab",
    "> quoted\n\n1. one\n\n[a]: http://example.invalid\n\n***",
]


def shown(markdown: str) -> str:
    """What a reader sees of the page's one block."""
    page = markdown_to_safe_html(markdown)
    found = re.fullmatch(r"<pre><code>(.*)\n</code></pre>", page, re.DOTALL)
    assert found is not None, page
    assert "<" not in found[1]
    return html.unescape(found[1])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(text: str) -> None:
    wanted = "\n".join(line.rstrip() for line in printable(text).expandtabs().split("\n"))
    assert "\n".join(line.rstrip() for line in shown(block(text)).split("\n")) == wanted


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("a <>&`~*_[]()!#|-=\n\t\\\"'\x1b\u202e1."), max_size=80))
@example("<!--")
def test_no_text_leaves_its_block(text: str) -> None:
    letters = re.sub(r"\s", "", printable(text))
    if letters:
        assert re.sub(r"\s", "", shown(f"{block(text)}")) == letters


def test_long_texts_are_cut_and_long_lines_go_on_below() -> None:
    text = block("x" * 1_000_000)
    assert len(text) < 1.1 * LONGEST
    assert text.endswith("... and 980000 letters more")
    assert max(map(len, text.split("\n"))) == WIDTH + 4
    assert len(block("\u202e" * 1_000_000)) < 1.1 * LONGEST


def test_an_episode_of_hostile_texts_is_bounded_and_shown_whole_where_there_is_room() -> None:
    def episode(text: str, turns: int) -> Episode:
        seen = Observation(text, None, "")
        task = Task(text, text, text, "train", "0")
        said = [Turn([1], [2], text, text, True, seen) for _ in range(turns)]
        return Episode(task, 0, said, EndReason.TURN_LIMIT, False, last_observation=seen)

    huge = episode_page(episode("<script>" * 125_000, 50), [0.0] * 50, 0, "<b>" * 10**6)
    assert len(huge) < 1.3 * LONGEST
    small = markdown_to_safe_html(episode_page(episode("<script>alert(1)</script>\n# title", 2), [0.5, -0.25], 3))
    assert "<script" not in small
    assert "<h1" not in small
    assert small.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8
    assert "advantage -0.250" in small
