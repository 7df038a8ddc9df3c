"""The timed walk of a newcomer types what the pages say, and stops where something fails."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    sys.modules.pop("walk", None)
    return importlib.import_module("walk")


def test_what_is_typed_stands_in_the_pages(script: ModuleType) -> None:
    names = ("README.md", "CONTRIBUTING.md", "docs/quickstart.md", "docs/custom_environment.md")
    pages = " ".join((ROOT / name).read_text(encoding="utf-8") for name in names)
    pages = " ".join(pages.split())
    for step in script.steps("SOURCE"):
        if "clone" in step.typed:
            continue
        for command in step.typed.replace(" -q", "").replace("logs/sdar/*", "RUN").split(" && "):
            assert command in pages, command
    assert [step.part for step in script.steps("SOURCE")] == ["first"] * 4 + ["own"] * 3 + ["change"] * 3


def test_steps_are_timed_where_they_belong_and_a_failure_ends_the_walk(script: ModuleType, tmp_path: Path) -> None:
    script.write_environment(tmp_path)
    assert (tmp_path / "drawers.py").read_text().startswith("from sdar.environments.multi_turn")
    (tmp_path / "clone").mkdir()
    wanted = [
        script.Step("first", "own", "test -f drawers.py && test -f settings/environment/drawers.yaml", own=True),
        script.Step("first", "clone", 'test "$(basename "$PWD")" = clone'),
        script.Step("first", "fails", "echo so it is; false && true; exit 3"),
        script.Step("first", "never", "true"),
    ]
    taken: list[Any] = []
    with pytest.raises(SystemExit, match=r"exit code 3\nso it is"):
        taken.extend(script.walk(tmp_path, wanted))
    assert [step.purpose for step, _ in taken] == ["own", "clone"]
    assert all(seconds >= 0 for _, seconds in taken)
