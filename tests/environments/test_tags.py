"""What responses say between tags and brackets is found as a plain pattern finds it, in time that grows with them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.arithmetic import rewards
from sdar.environments.search_qa import protocol
from sdar.environments.slots import first_action
from sdar.environments.tags import Tags
from sdar.environments.tools import calls_in, without_calls
from sdar.environments.webshop.shop import parts_of
from sdar.policy.call_form import CallForm

LLAMA = CallForm("", "", "name", "parameters")
LARGE = 2_000_000
SECONDS = 10.0
"""Of this process, and generous: the slowest takes a fifth of a second, and in quadratic time it would take minutes."""


def texts_of(*pieces: str) -> st.SearchStrategy[str]:
    """Short texts of these pieces and of whatever else there is."""
    return st.lists(st.sampled_from(pieces) | st.text(max_size=2), max_size=10).map("".join)


@pytest.mark.parametrize("any_case", [False, True])
@given(text=texts_of("<search>", "</search>", "<SEARCH>", "</Search>", "<\u017fearch>", "<search", ">", "</", "\n"))
def test_tags_are_found_as_by_a_pattern(any_case: bool, text: str) -> None:
    plain = re.compile("<search>(.*?)</search>", re.DOTALL | (re.IGNORECASE if any_case else 0))
    tags = Tags("search", any_case=any_case)
    first = plain.search(text)
    assert tags.first(text) == (None if first is None else first[1])
    assert tags.inside(text) == plain.findall(text)
    assert tags.outside(text) == plain.sub("", text)


@given(text=texts_of("search", "[", "]", "[x]", "\n", "\r", "\u2028"))
def test_shop_actions_are_read_as_by_the_originals_pattern(text: str) -> None:
    plain = re.match(r"(.+)\[(.+)\]", text)
    assert parts_of(text) == (("", "") if plain is None else (plain[1], plain[2].lower()))


@pytest.mark.parametrize(
    ("read", "unit"),
    [
        (calls_in, "<tool_call>"),
        (calls_in, "<tool_call></tool_call>"),
        (without_calls, "<tool_call>"),
        (first_action, "<action>"),
        (protocol.project, "<search>"),
        (protocol.project, "<answer>"),
        (protocol.parse, "<search><answer>"),
        (rewards.answered, "<Answer>"),
        (rewards.last_number, "1,"),
        (parts_of, "["),
        (parts_of, "[]"),
        (LLAMA.canonical, " "),
        (LLAMA.canonical, "{ "),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_the_time_grows_with_the_text(read: Callable[[str], Any], unit: str) -> None:
    text = unit * (LARGE // len(unit))
    begun = time.process_time()
    read(text)
    assert time.process_time() - begun < SECONDS
