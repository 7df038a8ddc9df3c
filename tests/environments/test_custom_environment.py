"""The code in docs/custom_environment.md is short, correct, playable and trainable."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sdar.config.plugins import allowing
from sdar.environments import check_env
from sdar.errors import UserError
from sdar.run.rules import processes
from sdar.run.validate import compose
from toys.installed import install, run

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "custom_environment.md").read_text()


def block(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[number])


COMMANDS = re.findall(r"^    (sdar .*)$", re.sub(r"\\\n +", "", GUIDE), re.MULTILINE)
SKILL = "---\nname: knock\nkind: general\n---\nKnock on a drawer before you open it.\n"


def test_a_working_environment_takes_at_most_40_lines() -> None:
    assert len(block("python").splitlines()) <= 40
    names: dict[str, Any] = {"__name__": "drawers"}
    exec(compile(block("python"), "custom_environment.md", "exec"), names)
    report = check_env(names["DrawersEnvironment"]())
    assert report.experts > 0


def test_an_environment_with_a_system_message_and_a_tool_takes_at_most_40_lines() -> None:
    assert len(block("python", 1).splitlines()) <= 40
    names: dict[str, Any] = {"__name__": "safe"}
    exec(compile(block("python", 1), "custom_environment.md", "exec"), names)
    assert check_env(names["SafeEnvironment"]()).steps > 0  # played in tests/rollout/test_tool_episodes.py


def test_a_pretrained_model_may_play_it_although_it_takes_no_settings_of_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "drawers.yaml").write_text(block("yaml"))
    (tmp_path / "drawers.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "available_gpus", lambda: 1)
    overrides = ["environment=drawers", "model=hf", "model.name=x", "run_dir=run"]
    with allowing(["drawers"]):
        settings = compose(overrides, config_dir=tmp_path)
        assert settings.config["environment"] == {"_target_": "drawers.DrawersEnvironment", "max_turns": 6}
        with pytest.raises(UserError, match=r"environment\.list_actions=true: there is no such setting"):
            compose([*overrides, "environment.list_actions=true"], config_dir=tmp_path)


@pytest.mark.parametrize("command", COMMANDS[4:])
def test_a_command_for_a_pretrained_model_is_accepted(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "drawers.yaml").write_text(block("yaml"))
    (tmp_path / "drawers.py").write_text(block("python"))
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "knock.md").write_text(SKILL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "available_gpus", lambda: 1)
    words = [word for word in command.split()[2:] if "=" in word]
    overrides = [word.replace("FOLDER", str(tmp_path / "skills")) for word in words]
    with allowing(["drawers"]):
        settings = compose([*overrides, "run_dir=run"], config_dir=tmp_path)
    assert settings.config["skills"] == str(tmp_path / "skills")


@pytest.mark.e2e
def test_the_guide_followed_to_the_letter_ends_in_a_trained_model(tmp_path: Path) -> None:
    """Beside an installed sdar: both files are saved where the guide says, and its commands are run."""
    install(tmp_path / "site")
    work = tmp_path / "work"
    (work / "settings" / "environment").mkdir(parents=True)
    (work / "drawers.py").write_text(block("python"))
    (work / "settings" / "environment" / "drawers.yaml").write_text(block("yaml"))
    (work / "skills").mkdir()
    (work / "skills" / "knock.md").write_text(SKILL)
    commands = [command.replace("FOLDER", "skills") for command in COMMANDS[:4]]
    checked, played, _, selected = [
        run(command, work, path=f"{tmp_path / 'site'}{os.pathsep}.") for command in commands
    ]
    assert "drawers keeps to the protocol" in checked
    assert "solved in 1 turns, reward 10" in played
    assert "library: skills, 1 skills, 1 of them general" in selected
    (results,) = work.glob("logs/**/results.json")
    record = json.loads(results.read_text())
    assert record["training"]["iterations"] == 3
    assert [row["n"] for row in record["results"]] == [10] * len(record["results"])
    assert "--allow" in json.loads((results.parent / "run.json").read_text())["command"]
