"""The score of a purchase, by hand, and the original's quirks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import goal, product

from sdar.environments.webshop.nouns import title_words
from sdar.environments.webshop.reward import COLOURS, first_colour, score, type_score

SCARF = product()
RIGHT = {"color": "red", "size": "small"}


def scored(bought=SCARF, options=RIGHT, price=20.0, wanted=SCARF, wanted_options=None, **fields):
    if wanted_options is not None:
        fields["options"] = wanted_options
    return score(bought, goal(wanted, **fields), price, options, lambda p: title_words(p.title), wanted)


def test_each_wish_counts_alike():
    assert scored() == 1.0
    assert scored(options={"color": "red"}) == 3 / 4
    assert scored(options={}) == 2 / 4
    assert scored(price=30.01) == 3 / 4
    assert scored(attributes=("soft wool", "waterproof")) == 4 / 5


def test_an_attribute_may_stand_in_the_texts():
    assert scored(attributes=("keeps warm",)) == 1.0
    assert scored(attributes=("hand wash",)) == 1.0
    assert scored(attributes=("wool scarf",)) == 1.0
    assert scored(attributes=("cotton scarf",)) == 3 / 4


def test_similar_attributes_count():
    assert scored(attributes=("wool, soft!",)) == 1.0


def test_an_option_is_compared_with_all_that_was_chosen():
    assert scored(options={"size": "red", "color": "small"}) == 1.0


def test_the_first_colour_of_a_name_counts():
    assert first_colour("dark red") == "dark"
    assert first_colour("layered") == "red"
    assert first_colour("plaid") == "plaid"
    assert first_colour(("color", "dark red")) == ("color", "dark red")
    assert first_colour(("color", "red")) == "red"


def test_options_of_people_are_plain_values():
    of_people = ("dark red", "small")
    assert scored(wanted_options=of_people, options={"color": "dark red", "size": "small"}) == 1.0
    assert scored(wanted_options=of_people, options={"color": "blue", "size": "small"}) == 3 / 4
    # "dark" is the first color of either name.
    assert scored(wanted_options=of_people, options={"color": "dark green", "size": "small"}) == 1.0


def test_a_pair_is_compared_by_its_text():
    dark = (("color", "dark red"), ("size", "small"))
    assert scored(wanted_options=dark, options={"color": "dark red", "size": "small"}) == 1.0
    assert scored(wanted_options=(("finish", "matte"),), options={"finish": "finish"}) == 1.0


@pytest.mark.parametrize(
    ("bought", "wanted", "query", "category", "expected"),
    [
        ("tent", ["tent", "green"], "other", "A", 1.0),  # half of the nouns
        ("tent", [*"abcdefgh", "tent"], "other", "A", 0.5),  # a ninth of them, another type
        ("tent", [*"abcdefgh", "tent"], " scarves ", "A", 1.0),  # another query than the product's
        ("tent", [*"abcdefghijk", "tent"], "other", "A", 0.1),
        ("stove", ["tent"], "scarves", "Fashion › Accessories", 0.0),
        ("stove", [], "scarves", "A", 1.0),
        ("stove", [], "other", "Accessories › Fashion › Hats", 1.0),
        ("stove", [], "other", "Fashion › Hats", 0.5),
    ],
)
def test_types(bought, wanted, query, category, expected):
    wish = goal(SCARF, query=query.strip(), product_category=category)
    assert type_score(SCARF, wish, [bought], wanted) == expected


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=4), st.floats(0, 200))
def test_any_purchase_scores_between_none_and_all(options, price):
    assert 0.0 <= scored(options=options, price=price) <= 1.0


def test_colours_are_sorted_and_unique():
    assert list(COLOURS) == sorted(set(COLOURS))
