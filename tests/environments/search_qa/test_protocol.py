"""Responses are parsed by the release's rule, and passages are shown in Search-R1's format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.search_qa.protocol import Answer, Search, information, parse, project
from sdar.environments.search_qa.retriever import Hit, Passage

PROJECTED = {
    "a search": ("<think>x</think><search> who? </search>", "<search>who?</search>", True),
    "an answer": ("<think>x</think><answer>Rome</answer>", "<answer>Rome</answer>", True),
    "no thought is needed": ("<answer>Rome</answer>", "<answer>Rome</answer>", True),
    "capitals": ("<SEARCH>who</SEARCH>", "<search>who</search>", True),
    "over lines": ("<search>a\nb</search>", "<search>a\nb</search>", True),
    "what follows is cut off": ("<search>a</search> and more", "<search>a</search>", True),
    "a search and then an answer": ("<search>a</search><answer>b</answer>", "<search>a</search>", False),
    "an answer and then a search": ("<answer>b</answer><search>a</search>", "<search>a</search>", False),
    "two searches": ("<search>a</search><search>b</search>", "<search>a</search>", False),
    "two answers": ("<answer>a</answer><answer>b</answer>", "<answer>a</answer>", False),
    "an answer opened in a search": ("<search>a <answer>b</search>", "<search>a <answer>b</search>", False),
    "never closed": ("<search>a", "", False),
    "closed and never opened": ("a</search>", "", False),
    "a stray closing tag hides the answer": ("</search><answer>a</answer>", "", False),
    "no tags": ("Rome", "", False),
    "nothing": ("", "", False),
    "an empty query": ("<search></search>", "<search></search>", True),
}


@pytest.mark.parametrize("name", PROJECTED)
def test_a_response_is_projected_by_the_releases_rule(name: str) -> None:
    response, action, valid = PROJECTED[name]
    projection = project(response)
    assert (projection.action, projection.valid) == (action, valid)


def test_an_action_is_a_search_or_an_answer() -> None:
    assert parse("<search> who? </search>") == Search("who?")
    assert parse("<answer>Rome</answer>") == Answer("Rome")
    assert parse("Rome") is None


@given(st.text(alphabet="<>/aesrchnw ", max_size=60))
def test_any_text_is_projected_and_an_action_means_what_it_says(text: str) -> None:
    projection = project(text)
    assert project(text) == projection
    assert (parse(projection.action) is None) == (projection.action == "")


def test_passages_are_numbered_with_their_titles() -> None:
    hits = [Hit(Passage("1", '"Rome"\nA town.'), 2.0), Hit(Passage("2", "No title"), 1.0)]
    assert information(hits) == "<information>Doc 1(Title: Rome) A town.\nDoc 2(Title: ) No title</information>"
    assert information([]) == "<information>Nothing was found.</information>"
