"""A reader gets from the training step to the gate in few calls."""

from __future__ import annotations

import traceback

import pytest
import torch

from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train

MOST = 5


def test_the_gate_is_few_calls_away_from_the_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in the functions of ours that lie between ``training_step`` and the gate's sigmoid, the update's path."""
    sigmoid, paths = torch.sigmoid, []

    def watched(values: torch.Tensor) -> torch.Tensor:
        frames = [frame for frame in traceback.extract_stack() if "/sdar/" in frame.filename]
        names = [frame.name for frame in frames]
        paths.append(names[names.index("training_step") + 1 :])
        return sigmoid(values)

    monkeypatch.setattr(torch, "sigmoid", watched)
    policy = toy_policy()
    train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 1)
    update = [path for path in paths if path[0] == "run"]
    assert update
    assert all(len(path) <= MOST for path in paths), paths
    assert update[0] == ["run", "_step", "token_losses", "_distillation", "value"]
