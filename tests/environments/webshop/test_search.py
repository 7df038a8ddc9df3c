"""The order of results."""

from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.webshop.search_index import SearchIndex


def test_the_best_first_and_ties_in_the_order_of_the_documents():
    index = SearchIndex(["wool hat", "felt hat", "wool hat", "wool wool scarf", "cap"])
    assert index.search("wool hat", 10) == [0, 2, 3, 1] or index.search("wool hat", 10)[:2] == [0, 2]
    assert index.search("hat", 2) == [0, 1]
    assert index.search("hat", 10) == [0, 1, 2]


def test_ties_are_in_the_order_of_the_ids_where_there_are_any():
    """Anserini sorts hits of one score by their ids."""
    index = SearchIndex(["wool hat", "felt hat", "wool hat", "cap"], ["B2", "B9", "B1", "B0"])
    assert index.search("wool", 10) == [2, 0]
    assert index.search("hat", 2) == [2, 0]


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
