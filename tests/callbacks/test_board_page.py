"""TensorBoard on a run's folder as a person sees it, in headless Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sdar.callbacks.board.board import Board
from sdar.episode import Task
from toys.boards import DEEP, Served, trained
from toys.chromium import BROWSER, Chromium
from toys.training import LettersEnvironment

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (Debian's package: chromium)"),
]

HOSTILE = '</script><script>window.hurt = 1</script><img src=x onerror="window.hurt = 2">'
TEXTS = f"""{DEEP}.filter((one) => one.tagName !== 'STYLE')
  .map((one) => [...one.childNodes].map((node) => node.nodeValue).join('')).join(' ')"""
"""An expression: everything written on the page."""


class Hostile(LettersEnvironment):
    """Tasks whose descriptions would like to be more than text."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [replace(task, description=HOSTILE + task.description) for task in super().tasks(split)]


class Page:
    """A page of TensorBoard, opened at one of its tabs."""

    def __init__(self, browser: Chromium, url: str, pictures: Path) -> None:
        self.browser, self.url, self.pictures = browser, url, pictures

    def open(self, tab: str, ready: str) -> None:
        self.browser.go("about:blank", "document.readyState === 'complete'")  # a change of the hash alone loads nothing
        self.browser.go(f"{self.url}#{tab}", ready)

    def check(self, name: str) -> None:
        """No script failed, and nothing was asked of anybody else."""
        self.browser.picture(self.pictures / f"tensorboard_{name}.png")
        ours = tuple(f"asked for {beginning}" for beginning in (self.url, "blob:", "about:"))
        assert [error for error in self.browser.errors if not error.startswith(ours)] == []
        assert self.browser.run("window.hurt === undefined")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("logs")
    trained(folder / "run", 3, board=Board(1, 1, 1), environment=Hostile())
    pictures = Path(os.environ.get("SDAR_PICTURES") or folder)
    with Served(folder) as board, Chromium(1600, 1100) as browser:
        yield Page(browser, board.url, pictures)


def test_the_first_screen_shows_success_and_curriculum(page: Page) -> None:
    page.open("timeseries", "document.querySelectorAll('scalar-card-component svg').length > 1")
    for title in ("at_a_glance/success_rate_in_training", "at_a_glance/endorsed_by_the_teacher"):
        cards = f"[...document.querySelectorAll('card-view')].filter((one) => one.textContent.includes({title!r}))"
        page.browser.wait(f"{cards}.length")
        bottoms = page.browser.run(f"{cards}.map((one) => one.getBoundingClientRect().bottom)")
        assert len(bottoms) == 1
        assert 0 < bottoms[0] < 1100
    page.check("first")


def test_pictures_are_whole_at_the_size_they_are_shown(page: Page) -> None:
    shown = f"{DEEP}.filter((one) => one.tagName === 'IMG' && one.naturalWidth === 700)"
    page.open("images", f"{shown}.length >= 3")
    assert (
        page.browser.run(f"{DEEP}.filter((one) => one.tagName === 'IMG' && one.complete && !one.naturalWidth).length")
        == 0
    )
    assert set(page.browser.run(f"{shown}.map((one) => one.width)")) == {350}
    texts = page.browser.run(TEXTS)
    assert "gap_by_turn" in texts
    page.check("images")


def test_texts_of_others_are_shown_as_text(page: Page) -> None:
    page.open("text", f"{TEXTS}.includes('window.hurt')")
    texts = page.browser.run(TEXTS)
    assert HOSTILE in texts
    assert "Endorsed most" in texts
    page.check("text")


@pytest.mark.parametrize(
    ("tab", "words"),
    [
        ("custom_scalars", "success on the panel, 95 % interval"),
        ("histograms", "curriculum/open_gap"),
        ("hparams", "sdar - alfworld - seed 3 - gate.beta=7"),
    ],
)
def test_every_page_opens(page: Page, tab: str, words: str) -> None:
    page.open(tab, f"{TEXTS}.includes({words!r})")
    page.check(tab)
