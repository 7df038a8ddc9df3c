"""A gate of one's own sees the same fields of a token in the update, in the metrics and in the episode log."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from sdar.callbacks.episode_log import EpisodeLog
from sdar.config.fields import settings
from sdar.objective.gate import Gate
from sdar.objective.tokens import DistillationTokens
from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train


@settings(frozen=True)
class FreshGate(Gate):
    """The gap gate, half as open where the policy has moved away from the token since it was sampled."""

    name: ClassVar[str] = "fresh"
    needs_entropy: ClassVar[bool] = True

    def value(self, tokens: DistillationTokens) -> torch.Tensor:
        assert tokens.old is not None
        assert tokens.entropy is not None
        assert tokens.advantage is not None
        assert tokens.turn is not None
        moved = (tokens.student.detach() - tokens.old).abs() > 0.1
        return torch.sigmoid(tokens.gap) * torch.where(moved, 0.5, 1.0)


@pytest.mark.parametrize("context", ["append", "window"])
def test_a_gate_may_read_every_field_of_a_token(context: str, tmp_path: Path) -> None:
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), context=context, gate=FreshGate(), distillation_coefficient=0.5)
    steps = train(module, toy_datamodule(policy, context=context), 2, callbacks=[EpisodeLog(tmp_path)]).steps
    assert all(0 < step["curriculum/gate_mean"] < 1 for step in steps.values())
    assert '"gate' in (tmp_path / "episodes.jsonl").read_text()
