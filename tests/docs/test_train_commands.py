"""Every ``python train.py`` line of README and docs is one that the program accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sdar import processes
from sdar.config.command_line import parse_command_line
from sdar.config.compose import sweep
from sdar.run.rules import processes as parallel
from sdar.run.rules.renamed import RENAMED
from sdar.run.validate import compose

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
    (tmp_path / "skill.md").write_text("---\nname: look\nkind: general\n---\nLook around.\n")
    line = re.sub(r"ckpt_path=(PATH|logs/\S+)", f"ckpt_path={checkpoint}", line)
    for placeholder, value in {
        "PATH": str(tmp_path), "FOLDER": str(tmp_path), "NAME": "name", "SEED": "1", "LAMBDA": "0.05", "URL": "http://localhost:8000/retrieve"
    }.items():  # fmt: skip
        line = re.sub(rf"\b{placeholder}\b", value, line)
    words = shlex.split(line, comments=True)
    for variable in words[: words.index("python")]:
        monkeypatch.setenv(*variable.split("=", 1))
    for module in (processes, parallel):
        monkeypatch.setattr(module, "available_gpus", lambda: 8)
    command = parse_command_line([_renamed(word) for word in words[words.index("train.py") + 1 :]])
    settings = [word for word in command.overrides if not word.startswith(("hydra/launcher=", "hydra.launcher."))]
    combinations = sweep(settings) if command.multirun else [settings]
    for overrides in combinations:
        compose([*overrides, f"run_dir={tmp_path / 'run'}"])


def _renamed(word: str) -> str:
    """What is typed today for an override of an earlier revision: results.md keeps those it was made with."""
    name, equals, value = word.partition("=")
    return f"{RENAMED.get(name, name)}{equals}{value}"
