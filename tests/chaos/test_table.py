"""The page about reliability holds what the tests try."""

from __future__ import annotations

from pathlib import Path

from table import table


def test_the_page_holds_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert page.partition("<!-- table -->\n")[2].partition("\n<!-- end -->")[0] == table()
