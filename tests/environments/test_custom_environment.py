"""The code in docs/custom_environment.md is short, correct, playable and trainable."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdar.environments import check_env

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "custom_environment.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return str(found)


def commands() -> list[list[str]]:
    """What the page says to type, as arguments of Python: the copy of the clone has no console script of its own."""
    lines = [shlex.split(line) for line in re.findall(r"^    ((?:python|sdar) .*)$", GUIDE, re.MULTILINE)]
    return [["-m", "sdar", *rest] if program == "sdar" else rest for program, *rest in lines]


def test_a_working_environment_takes_at_most_60_lines() -> None:
    assert len(block("python").splitlines()) <= 60
    names: dict[str, Any] = {"__name__": "drawers"}
    exec(compile(block("python"), "custom_environment.md", "exec"), names)
    report = check_env(names["DrawersEnvironment"]())
    assert report.experts > 0


@pytest.mark.e2e
def test_the_guide_followed_to_the_letter_ends_in_a_trained_model(tmp_path: Path) -> None:
    """In a copy of the clone: both files are saved where the guide says, and its commands are run."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*_seed*"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / "src/sdar/environments/drawers.py").write_text(block("python"))
    (tmp_path / "configs/environment/drawers.yaml").write_text(block("yaml"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    shown = []
    for command in commands():
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    checked, played, _ = shown
    assert "drawers keeps to the protocol" in checked
    assert "solved in 1 turns, reward 10" in played
    (results,) = tmp_path.glob("logs/**/results.json")
    record = json.loads(results.read_text())
    assert record["training"]["iterations"] == 3
    assert [row["n"] for row in record["results"]] == [10] * len(record["results"])
