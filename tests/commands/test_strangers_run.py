"""Promises about the run folder of a stranger: it is data, and nothing in it is imported, resolved or called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdar.commands import export, play

MODULE = """
from pathlib import Path
from sdar.environments.alfworld.environment import AlfworldEnvironment
Path(__file__).with_name("imported").touch()
class Game(AlfworldEnvironment):
    pass
"""
HOSTILE = [
    {"_target_": "sdar.run.folder.subprocess.run", "args": "touch pwned"},
    {"_target_": "os.system", "command": "touch pwned"},
    {"_target_": "sdar.commands.train.main", "arguments": ["name=pwned"]},
    {"_target_": "sdar.objective.gate.GapGate"},
    {"_target_": "strangers_package.Game"},
    {"_target_": ["os.system"]},
    "${oc.env:HOME}",
    None,
]
NO_TEACHER = ("teacher", None)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a folder whose configuration :func:`rewrite` changes. The stranger's package is even installed."""
    (tmp_path / "site" / "strangers_package").mkdir(parents=True)
    (tmp_path / "site" / "strangers_package" / "__init__.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.touch()
    return file


def rewrite(checkpoint: Path, **groups: Any) -> None:
    """Give the run of a checkpoint other settings."""
    small = {"num_tasks": [6, 6, 6], "max_turns": 2, "data_dir": None}
    game = {"_target_": "sdar.environments.alfworld.environment.AlfworldEnvironment", **small}
    rollout = {"context": "append"}
    settings = {"environment": game, "rollout": rollout, "teacher": None, **groups}
    (checkpoint.parents[1] / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def untouched(checkpoint: Path) -> bool:
    """Whether nothing was run, written or imported."""
    folder = checkpoint.parents[2]
    made = [path for path in folder.rglob("*") if path.name in ("pwned", "imported", "out", "logs")]
    return not made and "strangers_package" not in sys.modules


@pytest.mark.parametrize(
    ("group", "node"),
    [(group, node) for group in ("environment", "model", "teacher") for node in HOSTILE if (group, node) != NO_TEACHER],
    ids=str,
)
def test_play_rebuilds_objects_of_ours_alone(
    group: str, node: Any, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(checkpoint, **{group: node})
    skills = ["--skills"] if group == "teacher" else []
    assert play.main(["--policy", str(checkpoint), *skills], write=lambda text: None) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {group}")
    assert told.count("\n") == 1
    assert untouched(checkpoint)


@pytest.mark.parametrize("node", HOSTILE, ids=str)
def test_export_rebuilds_objects_of_ours_alone(node: Any, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(checkpoint, model=node)
    assert export.main([f"ckpt_path={checkpoint}", f"out={checkpoint.parents[2] / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: model")
    assert told.count("\n") == 1
    assert untouched(checkpoint)


def test_secrets_of_the_shell_are_not_filled_in(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "a-secret")
    game = {"_target_": "sdar.environments.alfworld.environment.AlfworldEnvironment"}
    rewrite(checkpoint, environment={**game, "data_dir": "/no/such/${oc.env:TOKEN_OF_MINE}"})
    assert play.main(["--policy", str(checkpoint)], write=lambda text: None) == 2
    assert "a-secret" not in capsys.readouterr().err


def test_a_plug_in_of_a_strangers_run_needs_a_word_and_plays_with_it(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"num_tasks": [6, 6, 6], "max_turns": 2, "data_dir": None}
    rewrite(checkpoint, environment={"_target_": "strangers_package.Game", **settings})
    arguments, shown = ["--policy", str(checkpoint)], []
    assert play.main(arguments, write=shown.append) == 2
    assert "if you trust the package strangers_package, add --allow strangers_package" in capsys.readouterr().err
    assert untouched(checkpoint)
    assert play.main([*arguments, "--allow", "strangers_package"], write=shown.append) == 2
    assert capsys.readouterr().err == "error: model is missing from the configuration\n"
    assert "strangers_package" in sys.modules
