"""The code in docs/custom_environment.md is short, correct, playable and trainable."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sdar.environments import check_env
from toys.installed import install, run

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "custom_environment.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return str(found)


COMMANDS = re.findall(r"^    (sdar .*)$", GUIDE, re.MULTILINE)


def test_a_working_environment_takes_at_most_60_lines() -> None:
    assert len(block("python").splitlines()) <= 60
    names: dict[str, Any] = {"__name__": "drawers"}
    exec(compile(block("python"), "custom_environment.md", "exec"), names)
    report = check_env(names["DrawersEnvironment"]())
    assert report.experts > 0


@pytest.mark.e2e
def test_the_guide_followed_to_the_letter_ends_in_a_trained_model(tmp_path: Path) -> None:
    """Beside an installed sdar: both files are saved where the guide says, and its commands are run."""
    install(tmp_path / "site")
    work = tmp_path / "work"
    (work / "settings" / "environment").mkdir(parents=True)
    (work / "drawers.py").write_text(block("python"))
    (work / "settings" / "environment" / "drawers.yaml").write_text(block("yaml"))
    shown = [run(command, work, path=f"{tmp_path / 'site'}{os.pathsep}.") for command in COMMANDS]
    checked, played, _ = shown
    assert "drawers keeps to the protocol" in checked
    assert "solved in 1 turns, reward 10" in played
    (results,) = work.glob("logs/**/results.json")
    record = json.loads(results.read_text())
    assert record["training"]["iterations"] == 3
    assert [row["n"] for row in record["results"]] == [10] * len(record["results"])
    assert "--allow" in json.loads((results.parent / "run.json").read_text())["command"]
