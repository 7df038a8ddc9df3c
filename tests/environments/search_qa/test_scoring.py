"""Answers are scored as in SQuAD's evaluation: a list of tricky strings, and properties."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.search_qa.scoring import NO_ANSWER, exact_match, f1_score, normalise, scores, substring_match

NORMALISED = [
    ("The Beatles", "beatles"),
    ("the  the Beatles ", "beatles"),
    ("A-ha", "aha"),  # punctuation is removed first, and leaves no gap
    ("a.", ""),
    ("An", ""),
    ("Annan", "annan"),
    ("theatre", "theatre"),
    ("The.", ""),
    ("Bath, Maine", "bath maine"),
    ("St. John's", "st johns"),
    ("U.S.A.", "usa"),
    ("U. S. A.", "u s"),  # the last A stands alone and is an article
    ("20 June 1837", "20 june 1837"),
    ("1,234.5", "12345"),
    ("$5 million", "5 million"),
    ("rock 'n' roll", "rock n roll"),
    ("\tNew\nYork\u00a0City", "new york city"),
    ("“Hamlet”", "“hamlet”"),  # typographic quotation marks are not ASCII punctuation
    ("Æthelburh of Wilton", "æthelburh of wilton"),
    ("ÉCOLE", "école"),
    ("well–known", "well–known"),
    ("vitamin A", "vitamin"),
    ("a-an-the", "aanthe"),
    ("_an_", ""),
    ("!!!", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), NORMALISED)
def test_tricky_strings_are_normalised_as_squad_does(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert _squad(text) == expected


def _squad(text: str) -> str:
    """The standard normalization, step by step, as an independent formula."""
    no_punctuation = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", no_punctuation).split())


@given(st.text())
def test_normalising_agrees_with_the_standard_on_any_text(text: str) -> None:
    assert normalise(text) == _squad(text)


def test_any_golden_answer_is_right() -> None:
    golden = ["Samuel Clemens", "Mark Twain"]
    assert exact_match("the mark twain!", golden) == 1.0
    assert exact_match("Mark", golden) == 0.0
    assert exact_match("", golden) == 0.0
    assert exact_match("x", []) == 0.0


def test_f1_is_that_of_the_best_golden_answer() -> None:
    assert f1_score("Mark Twain the writer", ["Samuel Clemens", "Mark Twain"]) == pytest.approx(2 * 2 / (3 + 2))
    assert f1_score("paris paris", ["Paris"]) == pytest.approx(2 * 1 / 3)  # a word counts as often as in both
    assert f1_score("Rome", ["Paris"]) == 0.0
    assert f1_score("the", [""]) == 1.0
    assert f1_score("", ["Paris"]) == 0.0


def test_a_substring_is_looked_for_after_normalising() -> None:
    assert substring_match("It was Bath, Maine, I think", ["Bath Maine"]) == 1.0
    assert substring_match("Bath", ["Bath, Maine"]) == 0.0
    assert substring_match("anything", ["the"]) == 0.0  # normalization leaves nothing, and an empty text is no match


@given(st.text(), st.lists(st.text(), max_size=3))
def test_scores_lie_between_0_and_1_and_an_exact_match_has_full_marks(answer: str, golden: list[str]) -> None:
    found = scores(answer, golden)
    assert found.keys() == NO_ANSWER.keys()
    assert all(0 <= value <= 1 for value in found.values())
    if found["exact_match"]:
        assert found["f1"] == 1.0
    if golden:
        assert scores(golden[0], golden)["exact_match"] == 1.0
