"""docs/extending.md as it stands: every file is short, does what the page says, and its commands train."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sdar.errors import UserError
from sdar.objective.tokens import DistillationTokens
from toys.training import LettersEnvironment, toy_datamodule, toy_module, toy_policy, train

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`((?:src|configs)/\S+?)`[^`]*?:\n\n```(?:python|yaml)\n(.*?)```", GUIDE, re.DOTALL))
"""path -> what the page says is in it"""
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (python .*)$", GUIDE, re.MULTILINE)]


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
    gate = names_of("src/sdar/objective/praise.py", monkeypatch).PraiseGate
    scores = torch.zeros(3)
    values = gate().value(DistillationTokens(scores, scores, advantage=torch.tensor([2.0, 0.0, -2.0])))
    assert values.tolist() == [0.5, 0.0, 0.0]
    with pytest.raises(UserError, match=r"PraiseGate\.beta must be a number >= 0, got -1"):
        gate(beta=-1.0)


def test_the_advantage_leaves_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = names_of("src/sdar/objective/leave_one_out.py", monkeypatch).LeaveOneOut(invalid_penalty=0.0)
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
    teacher = names_of("src/sdar/teacher/ending.py", monkeypatch).EndingTeacher("old")
    teacher.connect(LettersEnvironment(), len)
    module = toy_module(policy, teacher, context=context)
    data = toy_datamodule(policy, context=context, teacher=teacher)
    curve = train(module, data, 1).curve()
    assert curve[0]["curriculum/gap_std"] > 0
    assert curve[0]["teacher/tasks_solved"] == teacher.solved
    episodes = data.collect(0).episodes
    assert len(set(teacher.contexts(episodes))) > 1
    assert all(len(text) <= teacher.reserved_tokens(episodes[0].task) for text in teacher.contexts(episodes))


@pytest.mark.e2e
def test_the_guide_followed_to_the_letter_trains(tmp_path: Path) -> None:
    """In a copy of the clone: every file is saved where the page says, and its commands are run."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*_seed*"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "train.py", tmp_path)
    for path, text in FILES.items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    for number, command in enumerate(COMMANDS):
        done = subprocess.run(
            [sys.executable, *command[1:], f"run_dir=run{number}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"run{number}" / "results.json").is_file()
