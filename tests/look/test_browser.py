"""The episode browser as a person uses it, in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdar.commands.front import main
from sdar.look.episodes import read_episodes
from sdar.look.page import episodes_page
from toys.chromium import BROWSER, OVERFLOWING, Chromium
from toys.episodes import line, write_episodes

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (Debian's package: chromium)"),
]

READY = "document.body?.dataset.ready"
HOSTILE = '</script><script>window.hurt = 1</script><img src=x onerror="window.hurt = 2"><b>\x1b[2J\u202eevil'
LONG = "n" * 300


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as opened:
        yield opened


def page_of(lines: list[dict[str, Any]], folder: Path) -> Path:
    run = write_episodes(folder, lines)
    assert main(["episodes", str(run)]) == 0
    return run / "episodes.html"


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [line(number, turns=4) for number in range(120)]


@pytest.fixture(scope="module")
def page(lines: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(lines, tmp_path_factory.mktemp("run"))


def choose(browser: Chromium, name: str, value: str, event: str = "change") -> None:
    browser.run(
        f"(() => {{ const it = document.getElementById({name!r}); it.value = {value!r};"
        f" document.body.dataset.busy = 'yes'; it.dispatchEvent(new Event({event!r})); }})()"
    )
    if name not in ("compare", "threshold", "side"):
        browser.wait("document.body.dataset.busy === ''")


def shown(browser: Chromium) -> int:
    return int(browser.run("document.getElementById('count').textContent.split(' ')[0]"))


def heading(browser: Chromium) -> str:
    return str(browser.run("document.querySelector('#episode .facts').textContent"))


def test_every_filter_leaves_what_it_says(browser: Chromium, page: Path, lines: list[dict[str, Any]]) -> None:
    browser.resize(1200, 800)
    browser.open(page, READY)
    assert shown(browser) == len(lines)

    def outcome(one: dict[str, Any]) -> str:
        return "error" if one["end"].startswith("error") else "solved" if one["success"] else "failed"

    has = {
        "iteration": lambda one: f"iteration {one['iteration']}",
        "type": lambda one: one["task_type"],
        "outcome": outcome,
        "end": lambda one: one["end"],
    }
    for name, of in has.items():
        values = browser.run(f"[...document.getElementById({name!r}).options].map((one) => one.value).slice(1)")
        assert {value[1:] for value in values} == {of(one) for one in lines}
        for value in values[:12]:
            choose(browser, name, value)
            assert shown(browser) == sum(of(one) == value[1:] for one in lines)
        choose(browser, name, "")
    choose(browser, "text", "MUG 17 on", "input")
    assert shown(browser) == sum("mug 17 on" in one["description"] for one in lines)
    choose(browser, "text", "nothing has these words", "input")
    assert shown(browser) == 0
    choose(browser, "text", "", "input")
    least = {}
    for order in ("new", "old", "low", "high"):
        choose(browser, "order", order)
        browser.run("document.getElementById('list').scrollTop = 0; dispatchEvent(new Event('resize'))")
        least[order] = browser.run(
            "[...document.querySelectorAll('.row')].find((one) => one.style.top === '0px').textContent"
        )
    assert "iteration 59" in least["new"]
    assert "iteration 0" in least["old"]
    assert f"{min(min(t['gaps']) for one in lines for t in one['turns']):.2f} to" in least["low"]
    assert f"to +{max(max(t['gaps']) for one in lines for t in one['turns']):.2f}" in least["high"]
    assert browser.errors == []


def test_keys_step_through_episodes_turns_and_tokens(browser: Chromium, page: Path) -> None:
    browser.resize(1200, 800)
    browser.open(page, READY)
    first = heading(browser)
    assert "iteration 59" in first
    browser.key("j")
    browser.key("j")
    assert "iteration 58" in heading(browser)
    browser.key("k")
    browser.key("k")
    assert heading(browser) == first
    current = "[...document.querySelectorAll('.turn')].findIndex((one) => one.ariaCurrent === 'true')"
    assert browser.run(current) == 0
    browser.key("ArrowRight")
    browser.key("ArrowRight")
    browser.key("ArrowLeft")
    assert browser.run(current) == 1
    # every token beyond the threshold is met once, and then the next episode's
    choose(browser, "threshold", "80", "input")
    here = browser.run("document.querySelectorAll('.t.beyond').length")
    assert 0 < here < browser.run("document.querySelectorAll('.t').length")
    gaps = []
    for _ in range(here):
        browser.key("n")
        assert heading(browser) == first
        gaps.append(browser.run("document.querySelector('.t.here').token.gap"))
    assert all(abs(gap) >= 10 * 500**0.8 - 1 for gap in gaps)
    assert f"gap {gaps[-1] / 1000:+.3f} nats" in browser.run("document.getElementById('tip').textContent")
    browser.key("n")
    assert heading(browser) != first
    browser.key("p")
    assert heading(browser) == first
    browser.key("/")
    assert browser.run("document.activeElement.id") == "text"
    browser.key("j")
    assert browser.run("document.activeElement.value") == "j"
    assert browser.errors == []


def test_two_iterations_of_a_task_stand_side_by_side(browser: Chromium, page: Path) -> None:
    browser.resize(1200, 800)
    browser.open(page, READY)
    other = browser.run("document.getElementById('compare').options[1].value")
    choose(browser, "compare", other)
    cards = browser.run("[...document.querySelectorAll('.pairs > .card')].map((one) => one.textContent)")
    assert cards[0].startswith("iteration 59")
    assert cards[1].startswith(f"iteration {int(other) // 2}")
    assert browser.run("document.querySelectorAll('.pairs .t').length") == 2 * 4 * 20
    choose(browser, "compare", "")
    assert browser.run("document.querySelectorAll('.turn').length") == 4
    assert browser.run("document.querySelectorAll('.cards > .card').length") == 4
    assert browser.errors == []


def acting(iteration: int, *turns: str) -> dict[str, Any]:
    """An episode whose turns are ``situation: action``."""
    one = line(turns=len(turns)) | {"iteration": iteration}
    for turn, said in zip(one["turns"], turns, strict=True):
        turn["observation"], _, turn["action"] = said.partition(": ")
    return one


@pytest.mark.parametrize(
    ("new", "old", "rows"),
    [
        pytest.param(
            ("a: go", "b: open", "c: take", "d: put"),
            ("b: open", "x: look", "c: take", "d: put", "e: use"),
            ["1 -", "2 1", "- 2", "3 3", "4 4", "- 5"],
            id="inserted and removed",
        ),
        pytest.param(("a: go", "b: put"), ("a: take", "b: put"), ["1 1", "2 2"], id="another action"),
        pytest.param(
            ("a: go", "b: put"), ("a: go", "x: look", "y: look", "b: put"), ["1 1", "- 2", "- 3", "2 4"], id="longer"
        ),
        pytest.param(("c: go",), ("a: go", "b: go", "c: go"), ["- 1", "- 2", "1 3"], id="the same situation"),
        pytest.param((), ("a: go",), ["- 1"], id="nothing"),
        pytest.param(("a: go", "b: look"), ("x: use", "y: put", "z: take"), ["1 1", "2 2", "- 3"], id="nothing alike"),
    ],
)
def test_turns_stand_side_by_side_by_what_was_done(
    browser: Chromium, tmp_path: Path, new: tuple[str, ...], old: tuple[str, ...], rows: list[str]
) -> None:
    browser.resize(1200, 800)
    browser.open(page_of([acting(3, *old), acting(9, *new)], tmp_path), READY)
    choose(browser, "compare", "0")
    cards = browser.run("[...document.querySelectorAll('.pairs > .card')].slice(2).map((one) => one.innerText)")
    numbers = ["-" if "no such turn" in card else card.partition("turn ")[2].partition(":")[0] for card in cards]
    assert [" ".join(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)] == rows
    for left, right in zip(cards[::2], cards[1::2], strict=True):
        action = [card.rpartition("action: ")[2] for card in (left, right)]
        if "no such turn in iteration 9" in left:
            assert right.startswith("iteration 3, turn ")
            assert ": only here" in right
        elif "no such turn in iteration 3" in right:
            assert left.startswith("iteration 9, turn ")
            assert ": only here" in left
        else:
            word = "the same action" if action[0] == action[1] else "another action"
            assert word in left
            assert word in right
    for number in range(1, len(new)):
        browser.key("ArrowRight")
        inside = f"document.querySelector('.pairs [data-turn=\"{number}\"]').getBoundingClientRect()"
        assert browser.run(f"{inside}.top >= 0 && {inside}.top < innerHeight")
    assert browser.errors == []


def test_a_response_is_whole_where_only_its_first_tokens_have_figures(browser: Chromium, tmp_path: Path) -> None:
    one = line()
    for name in ("tokens", "student", "teacher", "gates", "gaps"):
        one["turns"][1][name] = one["turns"][1][name][:5]
    browser.open(page_of([one], tmp_path), READY)
    shown = browser.run("[...document.querySelectorAll('.turn .said')].map((each) => each.textContent)")
    assert shown == [turn["text"] for turn in one["turns"]]


def hostile(number: int) -> dict[str, Any]:
    one = line(number, turns=60) | dict.fromkeys(
        ("task", "task_type", "description", "error", "teacher_reads", "last_observation"), HOSTILE + LONG
    )
    for turn in one["turns"]:
        turn |= {"observation": HOSTILE + LONG, "text": HOSTILE, "action": HOSTILE + LONG}
        turn["tokens"] = [HOSTILE, LONG, *turn["tokens"][2:]]
    one["turns"][0]["observation"] = "long " * 200_000
    one["group"] = [sibling | {"actions": [HOSTILE, LONG]} for sibling in one["group"]]
    return one


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_and_long_texts_stay_text_within_a_phone(browser: Chromium, tmp_path: Path, dark: bool) -> None:
    page = page_of([hostile(number) for number in range(4)], tmp_path)
    browser.resize(360, 740)
    browser.open(page, READY)
    assert browser.run(OVERFLOWING) == []
    if dark:
        browser.run("document.getElementById('theme').click()")
    browser.key("?")
    assert browser.run(OVERFLOWING) == []
    browser.run("document.querySelector('.row').click()")
    browser.run("document.querySelector('details').open = true")
    assert browser.run(OVERFLOWING) == []
    browser.key("n")
    assert browser.run("!document.getElementById('tip').hidden")
    assert browser.run(OVERFLOWING) == []
    choose(browser, "compare", browser.run("document.getElementById('compare').options[1].value"))
    assert browser.run(OVERFLOWING) == []
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("window.hurt === undefined && !document.querySelector('main img, main b b, main script')")
    assert "</script><script>window.hurt" in browser.run("document.querySelector('#episode').textContent")
    assert browser.errors == []


def test_the_page_follows_the_system_and_its_button(browser: Chromium, page: Path) -> None:
    browser.resize(1200, 800)
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(page, READY)
    light = browser.run(background)
    browser.run("document.getElementById('theme').click()")
    dark = browser.run(background)
    assert dark != light
    with Chromium(dark=True) as other:
        other.open(page, READY)
        assert other.run(background) == dark


def test_compressed_episodes_are_found_opened_and_compared(browser: Chromium, tmp_path: Path) -> None:
    run = write_episodes(tmp_path, [line(number, turns=4) for number in range(600)])
    page = tmp_path / "episodes.html"
    page.write_text(episodes_page(read_episodes(run / "episodes.jsonl"), "run", plain=30_000).html, encoding="utf-8")
    browser.resize(1200, 800)
    browser.open(page, READY)
    choose(browser, "order", "old")
    browser.run("document.getElementById('list').scrollTop = 0; dispatchEvent(new Event('resize'))")
    browser.run("[...document.querySelectorAll('.row')].find((one) => one.style.top === '0px').click()")
    browser.wait("document.querySelector('#episode .facts').textContent.includes('iteration 0')")
    assert browser.run("document.querySelectorAll('.turn .t').length") == 4 * 20
    other = browser.run("document.getElementById('compare').options[3].value")
    choose(browser, "compare", other)
    browser.wait("document.querySelectorAll('.pairs .t').length === 2 * 4 * 20")
    # on to the next tokens, through episodes of which nothing was known
    choose(browser, "threshold", "95", "input")
    places = []
    for _ in range(40):
        # the mark has to move first: the next episode may still be on its way
        browser.run("window.before = document.querySelector('.t.here')")
        browser.key("n")
        browser.wait("document.querySelector('.t.here') && document.querySelector('.t.here') !== window.before")
        places.append(heading(browser))
    assert len(set(places)) > 5
    choose(browser, "text", "drawer 3 is closed", "input")
    assert shown(browser) == 600
    choose(browser, "text", "MUG 17 on", "input")
    assert shown(browser) == 15
    assert browser.errors == []


def test_keys_that_are_pressed_faster_than_episodes_come_are_all_followed(browser: Chromium, tmp_path: Path) -> None:
    run = write_episodes(tmp_path, [line(number, turns=4) for number in range(600)])
    page = tmp_path / "episodes.html"
    page.write_text(episodes_page(read_episodes(run / "episodes.jsonl"), "run", plain=30_000).html, encoding="utf-8")
    moved = "document.querySelector('.t.here') && document.querySelector('.t.here') !== window.before"
    reached = []
    for fast in (False, True):
        browser.open(page, READY)
        choose(browser, "threshold", "95", "input")
        browser.run("document.querySelector('.row').click()")
        browser.wait("document.querySelector('#episode .facts')?.textContent")
        first = heading(browser)
        if fast:
            browser.run("for (let i = 0; i < 60; i++) dispatchEvent(new KeyboardEvent('keydown', { key: 'n' }))")
            browser.wait(f"document.querySelector('#episode .facts').textContent === {reached[-1]!r}")
        for _ in range(0 if fast else 60):
            browser.run("window.before = document.querySelector('.t.here')")
            browser.key("n")
            browser.wait(moved)
        assert heading(browser) != first
        reached.append(heading(browser))
    assert browser.errors == []


def test_thousands_of_episodes_open_lazily(browser: Chromium, tmp_path: Path) -> None:
    page = page_of([line(number, turns=2, tokens=8) for number in range(3000)], tmp_path)
    browser.resize(1200, 800)
    browser.open(page, READY)
    assert browser.run("document.querySelectorAll('.row').length") < 60
    browser.run("document.getElementById('list').scrollTop = 1e9")
    browser.wait("[...document.querySelectorAll('.row')].some((one) => one.textContent.includes('iteration 0'))")
    assert browser.run("document.querySelectorAll('.row').length") < 60
    assert browser.errors == []
