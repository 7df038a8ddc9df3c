"""docs/adapters.md: every adapter has a row and a command, and the commands are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sdar.config.command_line import parse_command_line
from sdar.errors import UserError
from sdar.run.validate import compose

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "adapters.md").read_text()
ADAPTERS = ("gymnasium", "openenv", "trl", "verifiers")
COMMANDS = re.findall(r"^    sdar train (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_has_a_row_and_a_command_that_is_accepted(name: str, tmp_path: Path) -> None:
    assert f"| `{name}` |" in PAGE
    (command,) = [line for line in COMMANDS if f"environment={name} " in line]
    words = shlex.split(command.replace("FOLDER", str(tmp_path)).replace("NAME", "some/model"))
    overrides = [word for word in words if "=" in word]
    environment = compose([*overrides, "experiment=smoke", f"run_dir={tmp_path / 'run'}"]).config["environment"]
    assert environment["_target_"].startswith(f"sdar.environments.adapters.{name}.")
    assert list(parse_command_line(words).overrides) == overrides


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_file_states_every_setting_and_a_mistake_is_told(name: str, tmp_path: Path) -> None:
    needed = {"gymnasium": "id", "openenv": "url", "trl": "factory", "verifiers": "id"}[name]
    plain = [f"environment={name}", "algorithm=grpo", "teacher=none", f"run_dir={tmp_path}"]
    with pytest.raises(UserError, match=rf"environment\.{needed} is not set"):
        compose(plain)
    given = [*plain, f"environment.{needed}=x"]
    with pytest.raises(UserError, match=r"environment\.max_turns must be a whole number >= 1, got 0"):
        compose([*given, "environment.max_turns=0"])
    with pytest.raises(UserError, match=r"skills must be a directory or a shipped library"):
        compose([f"environment={name}", f"environment.{needed}=x", f"run_dir={tmp_path}"])


def test_no_library_is_imported_with_the_adapters() -> None:
    for file in (ROOT / "src" / "sdar" / "environments" / "adapters").glob("*.py"):
        assert not re.search(r"^\s*(import|from) (gymnasium|verifiers|trl|openenv)\b", file.read_text(), re.MULTILINE)
