"""The shop's pages, and the sessions of shoppers.

The texts, their order and the buttons of the pages are those of princeton-nlp/WebShop
(web_agent_site/envs/web_agent_text_env.py). The original renders HTML and strips it; here a page is a list of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sdar.environments.webshop.goals import Goal
from sdar.environments.webshop.product import Product
from sdar.environments.webshop.reward import Nouns, score

SEPARATOR = " [SEP] "
MOST_RESULTS = 50
PAGE_SIZE = 10

BUY, NEXT, PREVIOUS, RESTART, SEARCH = "Buy Now", "Next >", "< Prev", "Back to Search", "Search"
SUB_PAGES = ("Description", "Features", "Reviews")
_NO_BUTTON = "attributes"
"""A sub page that only an option of this name leads to, due to the order in which the original resolves names."""

_BLANK = " \t\n\f\r"
"""HTML whitespace."""

_PAGES = ("search_results", "item_page", "item_sub_page", "done")

PageName = Literal["index", "search_results", "item_page", "item_sub_page", "done"]


def parts_of(action: str) -> tuple[str, str]:
    """Name and lower-cased argument of an action ``name[argument]``; two empty texts for any other text.

    They are on the first line: the argument ends at its last closing bracket, and begins at the last opening one that
    leaves it a character. The original's pattern finds the same, but looks for the end again from every bracket.
    """
    line = action.partition("\n")[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 0))
    return ("", "") if start < 0 else (line[:start], line[start + 1 : end].lower())


@dataclass(frozen=True)
class Shop:
    """The part that all sessions share.

    ``search`` returns ASINs for a text, best first; ``nouns`` returns the nouns of a product's title.
    """

    products: Mapping[str, Product]
    prices: Mapping[str, float]
    search: Callable[[str], Sequence[str]]
    nouns: Nouns

    def score(self, goal: Goal, asin: str, options: Mapping[str, str]) -> float:
        """The score in [0, 1] of a purchase."""
        wanted = self.products[goal.asin]
        return score(self.products[asin], goal, self.prices[asin], options, self.nouns, wanted)


@dataclass(frozen=True)
class _Link:
    """A clickable element: a button, a product (target: its ASIN) or an option value (target: the option's name)."""

    kind: Literal["button", "product", "option"]
    target: str = ""


@dataclass
class Session:
    """One shopper on one page. ``options``: chosen values by option name; ``bought``, ``score``: set by a purchase."""

    shop: Shop
    goal: Goal
    page: PageName = "index"
    asin: str = ""
    options: dict[str, str] = field(default_factory=dict)
    bought: str | None = None
    score: float = 0.0
    texts: list[str] = field(default_factory=list)
    _links: dict[str, _Link] = field(default_factory=dict)
    _keywords: str = ""
    _number: int = 1
    _hits: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._restart()

    @property
    def observation(self) -> str:
        """The visible texts of the page; empty after the purchase."""
        return SEPARATOR.join(text.strip() for text in self.texts if _is_text(text))

    @property
    def has_search_bar(self) -> bool:
        """Whether the page shows a search bar. Searches work on every page all the same."""
        return self.page == "index"

    @property
    def clickables(self) -> list[str]:
        """Clickable elements in lower case: buttons, products, option values."""
        return list(self._links)

    @property
    def done(self) -> bool:
        """Whether a product was bought."""
        return self.bought is not None

    def step(self, action: str) -> None:
        """Apply ``search[words]`` or ``click[element of the page]``. Any other action changes nothing."""
        name, argument = parts_of(action)
        if name == "search":
            self._search(argument)
        elif name == "click" and argument in self._links and argument != SEARCH.lower():
            self._click(argument)

    # What actions do -------------------------------------------------------------------------------------------

    def _search(self, keywords: str) -> None:
        self._keywords = keywords
        self._hits = [asin for asin in self.shop.search(keywords) if asin in self.shop.products][:MOST_RESULTS]
        self._show_results(1)

    def _click(self, name: str) -> None:
        """Resolve a name in the original's order: an option named "description" is the button."""
        page = self._page_of_address()
        if name == BUY.lower():
            self._buy()
        elif name == RESTART.lower():
            self._restart()
        elif name == NEXT.lower() and page == "search_results":
            self._show_results(self._number + 1)
        elif name == PREVIOUS.lower() and page == "search_results":
            self._show_results(self._number - 1)
        elif name == PREVIOUS.lower() and page == "item_page":
            self._show_results(self._number)
        elif name in (*map(str.lower, SUB_PAGES), _NO_BUTTON):
            self._show_sub_page(name)
        else:
            link = self._links[name]
            if link.kind == "product":
                self.asin = link.target
            elif link.kind == "option":
                self.options[link.target] = name
            self._show_item()

    def _page_of_address(self) -> str:
        """The page's name, which the original reads from an address that also contains search words and options."""
        address = f"{self.page}/{self._keywords.replace(' ', '+')}/{self.options}"
        return next((name for name in _PAGES if name in address), "")

    def _buy(self) -> None:
        self.bought = self.asin
        self.score = self.shop.score(self.goal, self.asin, self.options)
        self.page, self.texts, self._links = "done", [], {}

    # Pages -----------------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        self.page, self.asin, self.options = "index", "", {}
        self._keywords, self._number, self._hits = "", 1, ()
        self.texts = ["WebShop", "Instruction:", self.goal.instruction, SEARCH]
        self._links = {SEARCH.lower(): _Link("button")}

    def _show(self, page: PageName, buttons: Sequence[str], texts: Sequence[str], trailing: Sequence[str] = ()) -> None:
        self.page = page
        self.texts = ["Instruction:", self.goal.instruction, RESTART, *texts, *trailing]
        self._links = {button.lower(): _Link("button") for button in (RESTART, *buttons, *trailing)}

    def _show_results(self, number: int) -> None:
        self._number, self.asin, self.options = number, "", {}
        found = self._hits[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
        shown = [self.shop.products[asin] for asin in found]
        buttons = [*([PREVIOUS] if number > 1 else []), NEXT]
        texts = [f"Page {number} (Total results: {len(self._hits)})", *buttons]
        for product in shown:
            texts += [product.asin, product.title, product.price_tag]
        self._show("search_results", buttons, texts)
        self._links |= {product.asin.lower(): _Link("product", product.asin) for product in shown}

    def _show_item(self) -> None:
        product = self.shop.products[self.asin]
        texts = [PREVIOUS]
        for name, values in product.options.items():
            texts += [name, *values]
        texts += [product.title, f"Price: {product.price_tag}", "Rating: N.A."]
        self._show("item_page", [PREVIOUS], texts, [*SUB_PAGES, BUY])
        for name, values in product.options.items():
            self._links |= {value: _Link("option", name) for value in values}

    def _show_sub_page(self, name: str) -> None:
        product = self.shop.products[self.asin]
        shown = {
            "description": [product.description],
            "features": _listed(product.bullets),
            "reviews": [],
            _NO_BUTTON: [*_listed(product.attributes), product.category, product.query, product.product_category],
        }
        self._show("item_sub_page", [PREVIOUS], [PREVIOUS, *shown[name]])


def _listed(texts: Sequence[str]) -> list[str]:
    """The entries of a list, each with a leading space, so that an empty one is shown as an empty text."""
    return [f" {text}" for text in texts]


def _is_text(text: str) -> bool:
    """Whether a text of the page is shown: neither an empty text nor a blank one with a line break.

    The original's HTML parser reduces the latter to one line break, which is then filtered out.
    """
    return text != "" and (text.strip(_BLANK) != "" or "\n" not in text)
