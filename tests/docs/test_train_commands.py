"""Every ``python train.py`` line of README and docs is one that the program accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sdar import processes
from sdar.config.command_line import parse_command_line
from sdar.config.compose import compose_config
from sdar.config.sources import config_folder
from sdar.run.rules import processes as parallel
from sdar.run.validate import validate

ROOT = Path(__file__).parents[2]
EXECUTED = ("extending.md", "custom_environment.md")  # by tests of their own, with the files of those pages
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in EXECUTED)]
LINES = [
    pytest.param(line, id=f"{page.name}: {line.partition('train.py')[2].strip()[:60]}")
    for page in PAGES
    for line in re.findall(
        r"^ {4,}((?:\w+=\S+ )?python train\.py.*)$", re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8")), re.M
    )
]


def test_there_are_such_lines() -> None:
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_is_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()
    line = re.sub(r"ckpt_path=(PATH|logs/\S+)", f"ckpt_path={checkpoint}", line)
    for placeholder, value in {
        "PATH": str(tmp_path), "NAME": "name", "SEED": "1", "LAMBDA": "0.05", "URL": "http://localhost:8000/retrieve"
    }.items():  # fmt: skip
        line = re.sub(rf"\b{placeholder}\b", value, line)
    words = shlex.split(line, comments=True)
    for variable in words[: words.index("python")]:
        monkeypatch.setenv(*variable.split("=", 1))
    for module in (processes, parallel):
        monkeypatch.setattr(module, "available_gpus", lambda: 8)
    config = compose_config(parse_command_line(words[words.index("train.py") + 1 :]).overrides, config_folder())
    config["run_dir"] = str(tmp_path / "run")
    validate(config)
