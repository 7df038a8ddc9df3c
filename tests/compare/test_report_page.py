"""The page of a report as a person sees it, in headless Chromium."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdar.compare.reporting.app import main
from toys.chromium import BROWSER, OVERFLOWING, Chromium
from toys.events import write_events
from toys.runs import make_run, results, row

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (Debian's package: chromium)"),
]

HOSTILE = '</script><script>window.hurt = 1</script><img src=x onerror="window.hurt = 2"><b>'
READY = "document.readyState === 'complete' && document.querySelector('h1')"
METHODS = ("grpo", "sdar", HOSTILE, "a_very_long_name_" * 20)
TYPES = ("heat", HOSTILE, "pick_two_obj_and_place_" * 8)


def make(logs: Path, method: str, seed: int) -> None:
    """A finished run of four iterations, with curves."""
    outcome = results(10, 30 + 3 * seed, iterations=4)
    outcome["evaluations"] = [
        {"iterations": iteration, "seconds": 0.0, **row(name, 10 + 5 * iteration + seed)}
        for iteration in (0, 2, 4)
        for name in ("val", "val_with_skills")
    ]
    for one in outcome["results"]:
        one["by_type"] = {name: {"n": 40, "successes": 5 + seed} for name in TYPES}
    known = method if method in METHODS[:2] else "sdar"
    folder = make_run(logs, [f"algorithm={known}", f"seed={seed}"], outcome)
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    record["command"] = ["sdar", "train", f"algorithm={known}", f"seed={seed}", f"model.name={method}"]
    (folder / "run.json").write_text(json.dumps(record))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("beta: 5.0", f"beta: {5.0 + METHODS.index(method)}"))
    curve = {step: -0.4 + 0.1 * step for step in range(4)}
    tags = (
        "curriculum/gap_mean",
        "curriculum/by_turn/gap_mean/00",
        "curriculum/by_turn/gap_mean/08+",
        "rollout/entropy",
    )
    seconds = {
        f"time/{part}_s": dict.fromkeys(range(4), 2.0) for part in ("generate", "environment", "score", "update")
    }
    write_events(folder / "tensorboard", {**dict.fromkeys(tags, curve), **seconds})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for method in METHODS:
        for seed in range(3 if method in METHODS[:2] else 1):
            make(folder / "logs", method, seed)
    assert main([str(folder / "logs"), f"out={folder / 'out'}"]) == 0
    return folder / "out" / "report.html"


@pytest.fixture(scope="module", params=["light", "dark"])
def browser(request: pytest.FixtureRequest) -> Iterator[Chromium]:
    with Chromium(dark=request.param == "dark") as opened:
        yield opened


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_whole_and_fits(browser: Chromium, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page, READY)
    for opened in (False, True):
        browser.run(f"document.querySelectorAll('details').forEach((one) => {{ one.open = {str(opened).lower()}; }})")
        assert browser.run(OVERFLOWING) == []
        assert browser.run("document.documentElement.scrollWidth") <= width
    pictures = browser.run(
        "[...document.querySelectorAll('figure svg')].map((one) => [one.getBoundingClientRect().width, "
        "one.getBoundingClientRect().height, one.querySelectorAll('path, use, image').length])"
    )
    assert len(pictures) >= 8
    assert all(wide > 200 and high > 100 and drawn > 5 for wide, high, drawn in pictures)
    maps = "[...document.querySelectorAll('svg image')]"
    assert max(browser.run(f"{maps}.map((one) => one.getBBox().width)")) > 100
    browser.run(f"Promise.all({maps}.map((one) => one.decode()))")  # an error for one that is damaged
    browser.picture(Path(os.environ.get("SDAR_PICTURES") or page.parent) / f"report_{width}.png")
    assert browser.errors == []


def test_names_of_others_are_shown_as_text(browser: Chromium, page: Path) -> None:
    browser.resize(1200, 800)
    browser.open(page, READY)
    assert browser.run("window.hurt === undefined && !document.querySelector('main img, body img, script')")
    assert HOSTILE in browser.run("document.body.textContent")
    drawn = browser.run("[...document.querySelectorAll('svg text')].map((one) => one.textContent).join(' ')")
    assert '"><b>' in drawn
    assert browser.errors == []


def test_links_lead_to_their_sections(browser: Chromium, page: Path) -> None:
    browser.resize(360, 740)
    browser.open(page, READY)
    found = browser.run(
        "[...document.querySelectorAll('nav a')].map((one) => { one.click(); const to = "
        "document.querySelector(one.hash).getBoundingClientRect(); return [one.textContent, "
        "document.querySelector(one.hash).textContent, to.top >= -2 && to.top < innerHeight]; })"
    )
    assert len(found) >= 8
    assert all(name == heading and seen for name, heading, seen in found)
