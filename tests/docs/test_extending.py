"""docs/extending.md as it stands: every file is short, does what the page says, and its commands train."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sdar.errors import UserError
from sdar.objective.tokens import DistillationTokens
from sdar.run.folder import read_config
from toys.installed import install, run
from toys.training import LettersEnvironment, toy_datamodule, toy_module, toy_policy, train

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`((?:mypkg|settings)/\S+?)`[^`]*?:\n\n```(?:python|yaml)\n(.*?)```", GUIDE, re.DOTALL))
"""path -> what the page says is in it"""
COMMANDS = re.findall(r"^    (sdar .*)$", GUIDE, re.MULTILINE)


def block(language: str, page: str = GUIDE) -> str:
    """The first block of a language on a page."""
    found = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[0]
    return str(found)


def names_of(path: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that a file of the page would be."""
    module = ModuleType("extension")
    monkeypatch.setitem(sys.modules, "extension", module)
    exec(compile(FILES[path], path, "exec"), module.__dict__)
    return module


def test_there_are_three_pairs_of_files_and_none_is_long() -> None:
    assert [Path(path).suffix for path in FILES] == [".py", ".yaml"] * 3
    assert all(len(text.splitlines()) < 40 for text in FILES.values())
    assert len(COMMANDS) == 3


def test_the_gate_praises_successes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = names_of("mypkg/praise.py", monkeypatch).PraiseGate
    scores = torch.zeros(3)
    values = gate().value(DistillationTokens(scores, scores, advantage=torch.tensor([2.0, 0.0, -2.0])))
    assert values.tolist() == [0.5, 0.0, 0.0]
    with pytest.raises(UserError, match=r"PraiseGate\.beta must be a number >= 0, got -1"):
        gate(beta=-1.0)


def test_the_advantage_leaves_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = names_of("mypkg/leave_one_out.py", monkeypatch).LeaveOneOut(invalid_penalty=0.0)
    episodes = toy_datamodule(toy_policy(), environment=LettersEnvironment(tasks=4, broken=True)).collect(0).episodes
    returns = [episode.episode_return for episode in episodes]
    for i, values in enumerate(estimator.turns(episodes)):
        start = i // 3 * 3
        others = [returns[k] for k in range(start, start + 3) if k != i]
        expected = 0.0 if episodes[i].end.is_error else returns[i] - sum(others) / 2
        assert values == pytest.approx([expected] * len(episodes[i].turns))


@pytest.mark.parametrize("context", ["append", "window"])
def test_the_teacher_scores_each_episode_by_its_ending(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = toy_policy()
    teacher = names_of("mypkg/ending.py", monkeypatch).EndingTeacher("old")
    teacher.connect(LettersEnvironment(), len)
    module = toy_module(policy, teacher, context=context)
    data = toy_datamodule(policy, context=context, teacher=teacher)
    curve = train(module, data, 1).curve()
    assert curve[0]["curriculum/gap_std"] > 0
    assert curve[0]["teacher/tasks_solved"] == teacher.solved
    episodes = data.collect(0).episodes
    assert len(set(teacher.contexts(episodes))) > 1
    assert all(len(text) <= teacher.reserved_tokens(episodes[0].task) for text in teacher.contexts(episodes))


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """The folder that holds sdar and the package of the page, installed; its YAML files lie where the user works."""
    site = tmp_path / "site"
    install(site, block("toml"))
    (site / "mypkg").mkdir()
    (site / "mypkg" / "__init__.py").touch()
    for path, text in FILES.items():
        file = (site if path.startswith("mypkg") else tmp_path) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return str(site)


@pytest.mark.e2e
def test_the_guide_followed_to_the_letter_trains(tmp_path: Path, installed: str) -> None:
    for number, command in enumerate(COMMANDS):
        run(
            command,
            tmp_path,
            f"run_dir=run{number}",
            "trainer.max_epochs=1",
            "environment.max_turns=2",
            "evaluation.panel_size=2",
            "evaluation.baselines=false",
            path=installed,
        )
        assert (tmp_path / f"run{number}" / "results.json").is_file()


CALLBACK = """
from pathlib import Path

from sdar.callbacks.base import IterationCallback


class Counter(IterationCallback):
    def __init__(self, file: str):
        self.file = file

    def on_iteration(self, trainer, module, iteration):
        with Path(self.file).open("a") as file:
            file.write(f"{len(iteration.episodes)}\\n")
"""


@pytest.mark.e2e
def test_an_environment_a_gate_and_a_callback_come_from_one_installed_package(tmp_path: Path, installed: str) -> None:
    guide = (ROOT / "docs" / "custom_environment.md").read_text(encoding="utf-8")
    python, yaml = (block(language, guide) for language in ("python", "yaml"))
    (Path(installed) / "mypkg" / "drawers.py").write_text(python, encoding="utf-8")
    (Path(installed) / "mypkg" / "counter.py").write_text(CALLBACK, encoding="utf-8")
    (tmp_path / "settings" / "environment").mkdir()
    (tmp_path / "settings" / "environment" / "mine.yaml").write_text(yaml.replace("drawers.Dra", "mypkg.drawers.Dra"))
    run(
        "sdar train --config-dir settings experiment=smoke environment=mine gate=praise trainer.max_epochs=1 "
        "'callbacks.mine={_target_: mypkg.counter.Counter, file: counted}' evaluation.baselines=false run_dir=run",
        tmp_path,
        path=installed,
    )
    assert (tmp_path / "counted").read_text() == "4\n"
    settings = read_config(tmp_path / "run")
    assert settings["environment"]["_target_"] == "mypkg.drawers.DrawersEnvironment"
    assert settings["gate"]["_target_"] == "mypkg.praise.PraiseGate"
