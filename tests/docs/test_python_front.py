"""docs/python.md as it stands: its code runs, and the first example is short."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import sdar
from sdar.errors import UserError

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_a_training_run_takes_at_most_15_lines_of_python() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15
    assert "compose" not in BLOCKS[0]


def test_the_page_names_what_the_package_offers() -> None:
    assert set(re.findall(r"^\| `sdar\.(\w+)", GUIDE, re.MULTILINE)) == set(sdar.__all__) - {"__version__"}


def run(*blocks: str) -> dict[str, Any]:
    """The names that the code defines."""
    names: dict[str, Any] = {"__name__": "front"}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)
    return names


def test_the_code_without_configuration_files_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # Lightning writes its checkpoints here
    plain, with_teacher, _ = BLOCKS
    names = run(plain)
    assert re.findall(r"^(\d) [\d.]+$", capsys.readouterr().out, re.MULTILINE) == ["0", "1"]
    assert "curriculum/gap_mean" not in names["module"].report.metrics
    names = run(plain, with_teacher)
    assert names["module"].report.metrics["curriculum/gap_std"] > 0


def test_the_code_with_configuration_files_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(BLOCKS[2])
    assert "10.0 6 alfworld" in capsys.readouterr().out.splitlines()
    assert names["assembly"].module.report.metrics["objective/beta"] == 10


def test_a_wrong_setting_is_told_as_the_page_says() -> None:
    from sdar.learning.optimizer import OptimizerSettings

    with pytest.raises(UserError) as error:
        OptimizerSettings(learning_rate=0)
    assert str(error.value) in GUIDE
