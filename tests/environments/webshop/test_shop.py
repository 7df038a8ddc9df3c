"""Pages and sessions: texts, clickable elements, and the state of a session."""

import pytest
from small_shop import product, session, visit

from sdar.environments.webshop.goals import make_goals

SCARF = product()
HAT = product("B002", "Blue felt hat", customization_options="", query="hats", small_description="Felt.")
MANY = [product(f"B1{number:02d}", f"Grey sock number {number}") for number in range(57)]


def test_the_first_page_has_the_instruction_and_a_search_bar():
    opened = session(SCARF)
    assert opened.observation == "WebShop [SEP] Instruction: [SEP] Find me a scarf [SEP] Search"
    assert opened.has_search_bar
    assert opened.clickables == ["search"]


def test_results_show_code_title_and_price():
    opened = visit(session(SCARF, HAT), "search[Wool SCARF]")
    assert opened.observation == (
        "Instruction: [SEP] Find me a scarf [SEP] Back to Search [SEP] Page 1 (Total results: 1) [SEP] Next > [SEP] "
        "B001 [SEP] Red wool scarf [SEP] $20.0"
    )
    assert opened.clickables == ["back to search", "next >", "b001"]
    assert not opened.has_search_bar


def test_fifty_results_ten_to_a_page_and_pages_beyond_are_empty():
    opened = visit(session(*MANY), "search[sock]")
    assert "Page 1 (Total results: 50)" in opened.observation
    assert len(opened.clickables) == 12
    visit(opened, *["click[next >]"] * 4)
    assert "Page 5 (Total results: 50) [SEP] < Prev [SEP] Next >" in opened.observation
    assert len(opened.clickables) == 13
    visit(opened, "click[next >]")
    assert opened.observation.endswith("Page 6 (Total results: 50) [SEP] < Prev [SEP] Next >")
    visit(opened, "click[< prev]")
    assert len(opened.clickables) == 13


def test_the_page_of_a_product():
    opened = visit(session(SCARF), "search[scarf]", "click[b001]")
    assert opened.observation == (
        "Instruction: [SEP] Find me a scarf [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red [SEP] blue | grey "
        "[SEP] size [SEP] small [SEP] Red wool scarf [SEP] Price: $20.0 [SEP] Rating: N.A. [SEP] Description [SEP] "
        "Features [SEP] Reviews [SEP] Buy Now"
    )
    assert opened.clickables == [
        "back to search", "< prev", "description", "features", "reviews", "buy now", "red", "blue | grey", "small",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("description", " [SEP] Keeps warm."),
        ("features", " [SEP] Soft wool. [SEP] Hand wash."),
        ("reviews", ""),
    ],
)
def test_sub_pages_and_the_way_back(name, texts):
    opened = visit(session(SCARF), "search[scarf]", "click[b001]", "click[red]")
    item = opened.observation
    visit(opened, f"click[{name}]")
    assert opened.observation == f"Instruction: [SEP] Find me a scarf [SEP] Back to Search [SEP] < Prev{texts}"
    assert opened.clickables == ["back to search", "< prev"]
    visit(opened, "click[< prev]")
    assert opened.observation == item
    assert opened.options == {"color": "red"}


# Blank texts after the original's HTML parser (bs4 on html.parser) and filter, found by running them.
@pytest.mark.parametrize(
    ("description", "shown"),
    [("", ""), (" ", " [SEP] "), ("\n", ""), (" \r\n", ""), ("\t", " [SEP] "), ("\xa0", " [SEP] ")],
)
def test_a_blank_description_is_an_empty_text_unless_it_ends_a_line(description, shown):
    opened = visit(session(product(full_description=description)), "search[scarf]", "click[b001]", "click[description]")
    assert opened.observation.endswith(f"Back to Search [SEP] < Prev{shown}")


@pytest.mark.parametrize(
    ("bullets", "shown"),
    [
        ("", " [SEP] "),
        ([""], " [SEP] "),
        (["", " ", "\n", "x", " \n "], " [SEP]  [SEP]  [SEP] x"),
        ([], ""),
    ],
)
def test_an_empty_feature_is_an_empty_text_as_a_space_leads_each(bullets, shown):
    opened = visit(session(product(small_description=bullets)), "search[scarf]", "click[b001]", "click[features]")
    assert opened.observation.endswith(f"Back to Search [SEP] < Prev{shown}")


def test_a_product_without_a_title_is_listed_by_code_and_price():
    opened = visit(session(product(name="")), "search[warm]")
    assert opened.observation.endswith("Next > [SEP] B001 [SEP] $20.0")


@pytest.mark.parametrize("action", ["search[hat]", "click[back to search]", "click[< prev]"])
def test_options_are_forgotten_on_the_way_to_other_products(action):
    opened = visit(session(SCARF, HAT), "search[scarf]", "click[b001]", "click[red]", action)
    assert opened.options == {}


def test_going_back_shows_the_same_page_of_results():
    opened = visit(session(*MANY), "search[sock]", "click[next >]")
    results = opened.observation
    visit(opened, f"click[{opened.clickables[-1]}]", "click[red]", "click[< prev]")
    assert opened.observation == results


def test_a_later_choice_replaces_an_earlier_one():
    opened = visit(session(SCARF), "search[scarf]", "click[b001]", "click[red]", "click[blue | grey]")
    assert opened.options == {"color": "blue | grey"}


def test_buying_ends_the_visit():
    opened = visit(session(SCARF), "search[scarf]", "click[b001]", "click[small]", "click[red]", "click[buy now]")
    assert (opened.bought, opened.score, opened.done) == ("B001", 1.0, True)
    assert opened.observation == ""
    assert opened.clickables == []


@pytest.mark.parametrize(
    "action",
    [
        "",
        "buy",
        "click[]",
        "search[]",
        "click[red]",
        "click[nothing]",
        "look[x]",
        "click[search]",
        "[x]",
        "search",
        "a\nb[c]",
    ],
)
def test_what_is_not_possible_changes_nothing(action):
    opened = visit(session(SCARF, HAT), "search[felt]")
    before = (opened.observation, opened.clickables)
    visit(opened, action)
    assert (opened.observation, opened.clickables) == before


def test_a_search_is_understood_on_every_page():
    opened = visit(session(SCARF, HAT), "search[scarf]", "click[b001]", "search[hat]")
    assert "Blue felt hat" in opened.observation
    visit(opened, "search[nothing like it]")
    assert "Page 1 (Total results: 0)" in opened.observation


def test_an_option_of_another_product_cannot_be_clicked():
    opened = visit(session(HAT, SCARF), "search[hat]", "click[b002]", "click[red]")
    assert opened.options == {}


@pytest.mark.parametrize(
    ("value", "page"), [("Description", "item_sub_page"), ("Buy Now", "done"), ("Back to Search", "index")]
)
def test_a_value_that_is_called_like_a_button_is_the_button(value, page):
    odd = product(customization_options={"kind": [{"value": value}]})
    assert visit(session(odd), "search[scarf]", "click[b001]", f"click[{value.lower()}]").page == page


def test_a_value_called_next_is_a_value_and_one_called_search_is_nothing():
    odd = product(customization_options={"kind": [{"value": "Next >"}, {"value": "Search"}]})
    opened = visit(session(odd), "search[scarf]", "click[b001]", "click[next >]")
    assert (opened.page, opened.options) == ("item_page", {"kind": "next >"})
    assert visit(opened, "click[search]").options == {"kind": "next >"}


def test_a_value_of_two_options_belongs_to_the_last():
    odd = product(customization_options={"frame": [{"value": "black"}], "seat": [{"value": "black"}]})
    assert visit(session(odd), "search[scarf]", "click[b001]", "click[black]").options == {"seat": "black"}


def test_odd_characters_are_shown_as_they_are():
    odd = product(name='Été <b>"scarf"</b> & 漢字 ☕ [SEP]')
    opened = visit(session(odd), 'search[<b>scarf & "x"]', "click[b001]")
    assert 'Été <b>"scarf"</b> & 漢字 ☕ [SEP]' in opened.observation


def test_search_words_that_name_a_page_mislead_the_way_back_as_in_the_original():
    # The original reads the page's name from an address that contains the search words.
    opened = visit(session(SCARF), "search[scarf search_results]", "click[b001]", "click[< prev]")
    assert "Page 0 (Total results: 1)" in opened.observation


def test_option_names_do_so_too():
    odd = product(customization_options={"item_page": [{"value": "red"}]})
    opened = visit(session(odd), "search[scarf]", "click[b001]", "click[red]", "click[features]", "click[< prev]")
    assert opened.page == "search_results"


def test_a_value_called_attributes_leads_to_the_page_of_attributes():
    odd = product(attributes={"attributes": ["soft", ""]}, customization_options={"kind": [{"value": "Attributes"}]})
    opened = visit(session(odd), "search[scarf]", "click[b001]", "click[attributes]")
    assert (opened.page, opened.options) == ("item_sub_page", {})
    shown = "soft [SEP]  [SEP] apparel [SEP] scarves [SEP] Fashion › Accessories › Scarves"
    assert opened.observation.endswith(f"< Prev [SEP] {shown}")


def test_a_product_without_options_has_one_goal():
    import random

    bare = product(
        attributes={"attributes": ["warm"], "instruction": "Find me a hat", "instruction_attributes": ["warm"]},
        customization_options="",
    )
    (only,) = make_goals([bare], {"B001": 20.0}, random.Random(0), human=False)
    assert only.options == ()
    assert only.instruction.startswith("Find me a hat, and price lower than ")
