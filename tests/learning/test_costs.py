"""Promises of the costs: every token that a scoring pass is fed is counted, and the arithmetic by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sdar.learning.costs import FedTokens, ModelSizes, flops
from sdar.learning.supervision import SolvedEpisodes
from sdar.objective.divergence import Sampled
from sdar.objective.full_vocabulary import ReverseKL
from sdar.objective.gate import NoGate
from sdar.policy import log_probs
from sdar.policy.forward import hidden_states
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, Memory, toy_datamodule, toy_module, toy_policy, train


def trained(monkeypatch: pytest.MonkeyPatch, teacher: HintTeacher | None, **settings: Any) -> tuple[Memory, Any, Any]:
    """What was logged, the module, and [without gradient, with gradient] tokens that a scoring pass was fed."""
    fed = [0, 0]
    real = log_probs.token_states

    def counted(model: Any, ids: Any, attention_mask: Any, score_mask: Any, shared: Any = None) -> Any:
        if bool(score_mask.any()) and (shared is None or not any(shared.tokens)):
            fed[torch.is_grad_enabled()] += int(attention_mask.sum())
        return real(model, ids, attention_mask, score_mask, shared)

    def placed(model: Any, ids: Any, *, position_ids: Any, **others: Any) -> Any:
        """Padding has the position of the last real token."""
        fed[torch.is_grad_enabled()] += sum(len(row.unique()) for row in position_ids)
        return hidden_states(model, ids, position_ids=position_ids, **others)

    monkeypatch.setattr("sdar.policy.shared_prefixes.hidden_states", placed)
    for module in ("sdar.policy.log_probs", "sdar.learning.loss"):
        monkeypatch.setattr(f"{module}.token_states", counted)
    context = settings.get("context", "append")
    policy = toy_policy()
    module = toy_module(policy, teacher, **settings)
    return train(module, toy_datamodule(policy, context=context), 1), module, fed


PLAIN = {"distillation_coefficient": 0.0, "kl_coefficient": 0.0}


@pytest.mark.parametrize(
    ("teacher", "settings"),
    [
        pytest.param(None, PLAIN, id="grpo"),
        pytest.param(None, PLAIN | {"episodes_per_step": None}, id="one step"),
        pytest.param(None, PLAIN | {"context": "window"}, id="window"),
        pytest.param(None, PLAIN | {"kl_coefficient": 0.1}, id="reference"),
        pytest.param(None, PLAIN | {"supervision": SolvedEpisodes()}, id="supervised"),
        pytest.param({}, {"divergence": Sampled()}, id="sdar"),
        pytest.param({"share_prefixes": False}, {"divergence": Sampled()}, id="whole rows"),
        pytest.param({}, {"divergence": Sampled(), "context": "window"}, id="sdar, window"),
        pytest.param({"source": TeacherSource.CURRENT}, {"divergence": Sampled()}, id="moving"),
        pytest.param(
            {"source": TeacherSource.INITIAL}, {"divergence": ReverseKL(), "gate": NoGate()}, id="initial, whole"
        ),
        pytest.param(
            {"source": TeacherSource.CURRENT}, {"divergence": ReverseKL(), "gate": NoGate()}, id="whole vocabulary"
        ),
        pytest.param({"keep_hidden": True}, {"divergence": ReverseKL(), "gate": NoGate()}, id="kept"),
    ],
)
def test_what_is_counted_is_what_the_models_are_fed(
    monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any] | None, settings: dict[str, Any]
) -> None:
    asked = None if teacher is None else HintTeacher(**teacher)
    memory, module, fed = trained(monkeypatch, asked, **settings)
    cost = {tag: value for tag, value in memory.steps[0].items() if tag.startswith("cost/")}
    assert cost["cost/tokens_scored"] + cost["cost/tokens_teacher"] == fed[0]
    assert cost["cost/tokens_learned"] == fed[1] > 0
    assert (cost["cost/tokens_teacher"] > 0) == (teacher is not None)
    whole = 0 if module.report.prepared.teacher is None else sum(module.report.prepared.teacher.rows.lengths())
    if teacher == {}:
        assert cost["cost/tokens_teacher"] < 0.9 * whole  # a group begins alike
    size = sum(weight.numel() for weight in module.model.parameters())
    forward = cost["cost/tokens_played"] + fed[0]
    assert cost["cost/flops"] == 2 * size * forward + 6 * size * fed[1]


def test_playing_is_counted_by_prompts_observations_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cache every prompt of a window is fed whole, so a window costs at least what appending costs."""
    played = {}
    for context in ("append", "window"):
        memory, module, _ = trained(monkeypatch, None, context=context, **PLAIN)
        rows = module.report.prepared.batch.lengths()
        played[context] = memory.steps[0]["cost/tokens_played"]
        assert played[context] == sum(rows)
    assert played["window"] > played["append"]


def test_the_arithmetic_by_hand() -> None:
    tokens = FedTokens(played=100, scored=200, teacher=300, learned=50)
    assert flops(tokens, ModelSizes(student=10, trained=10, teacher=10)) == 2 * 10 * 600 + 6 * 10 * 50
    # of a frozen model with an adapter of one parameter, and a teacher ten times as large
    assert flops(tokens, ModelSizes(student=10, trained=1, teacher=100)) == 20 * 300 + 200 * 300 + 42 * 50


def test_shared_weights_are_counted_once() -> None:
    student = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    student[1].weight = student[0].weight
    assert ModelSizes.of(student) == ModelSizes(16, 16, 16)
    student.requires_grad_(False)
    assert ModelSizes.of(student, nn.Linear(3, 1)) == ModelSizes(16, 0, 4)
