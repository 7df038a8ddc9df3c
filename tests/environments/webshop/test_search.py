"""Text analysis, and the order of results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.webshop.search_index import SearchIndex, TextAnalyser

ANALYSER = TextAnalyser()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Women's running shoes", ["women", "run", "shoe"]),
        ("4.5 oz, 1,000 pieces", ["4.5", "oz", "1,000", "piec"]),
        ("rock'n'roll o'neil", ["rock'n'rol", "o'neil"]),
        ("t-shirt v-neck", ["t", "shirt", "v", "neck"]),
        ("u.s.b. and wi.fi", ["u.s.b", "wi.fi"]),
        ("the of and", []),
        ("snake_case 2.4ghz", ["snake_cas", "2.4ghz"]),
        ("漢字 Été", ["漢", "字", "été"]),
        ("5'2\"x7'4\"", ["5'2", "x7'4"]),
        ("s us ss", ["s", "us", "ss"]),
        ("", []),
    ],
)
def test_terms(text, terms):
    assert ANALYSER.terms(text) == terms


def test_the_best_first_and_ties_in_the_order_of_the_documents():
    index = SearchIndex(["wool hat", "felt hat", "wool hat", "wool wool scarf", "cap"])
    assert index.search("wool hat", 10) == [0, 2, 3, 1] or index.search("wool hat", 10)[:2] == [0, 2]
    assert index.search("hat", 2) == [0, 1]
    assert index.search("hat", 10) == [0, 1, 2]


def test_only_documents_that_share_a_term_are_found():
    index = SearchIndex(["wool hat", "", "felt"])
    assert index.search("hats", 5) == [0]
    assert index.search("shoe", 5) == []
    assert index.search("the", 5) == []
    assert index.search("", 5) == []


@given(st.text(max_size=60))
def test_any_text_can_be_searched(text):
    found = SearchIndex(["wool hat", "felt", "漢字"]).search(text, 2)
    assert len(found) <= 2
