"""With one optimizer step an iteration, old log-probs come from its own forward pass: all figures stay, a pass less."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdar.objective.divergence import SampledReverseKL
from sdar.objective.full_vocabulary import GatedExpected, ReverseKL
from sdar.objective.gate import CentredGate, NoGate, SoftOrGate
from sdar.objective.schedule import Constant, Schedules, Step
from sdar.objective.shaping import RLSD
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, LettersEnvironment, learned, toy_datamodule, toy_module, toy_policy, train

ITERATIONS = 3
TEACHER = HintTeacher()


def played(*, reuse: bool, broken: bool = False, **settings: Any) -> tuple[dict[int, dict[str, float]], int, Any]:
    """The curve of a run, the rows that were scored without gradient by the student, and its last weights."""
    policy = toy_policy(lora=settings.pop("lora", None))
    teacher = settings.pop("teacher", TEACHER)
    context = settings.get("context", "append")
    module = toy_module(policy, teacher, episodes_per_step=None, reuse_scores=reuse, **settings)
    passes = []

    def count(*_: Any) -> None:
        passes.append(torch.is_grad_enabled())

    data = toy_datamodule(policy, environment=LettersEnvironment(broken=broken), teacher=teacher, context=context)
    hook = policy.model.get_decoder().register_forward_pre_hook(count)
    curve = train(module, data, ITERATIONS).curve()
    hook.remove()
    return (
        {step: learned(figures) for step, figures in curve.items()},
        passes.count(False),
        [weight.detach().clone() for weight in policy.model.parameters()],
    )


CASES: dict[str, dict[str, Any]] = {
    "sdar": {},
    "sdar, a prompt every turn": {"context": "window"},
    "grpo": {"teacher": None, "distillation_coefficient": 0.0},
    "no entropy term": {"entropy_coefficient": 0.0},
    "sampled reverse KL": {"gate": NoGate(), "divergence": SampledReverseKL()},
    "a gate of the entropy": {"gate": SoftOrGate()},
    "a centred gate": {"gate": CentredGate(baseline="neutral")},
    "ratios of turns": {"ratio": "turn"},
    "the paper's averages": {"context": "window", "rows_per_step": 300, "micro_batch_rows": 2},
    "states of the teacher that are kept": {
        "teacher": HintTeacher(keep_hidden=True),
        "gate": NoGate(),
        "divergence": ReverseKL(),
    },
    "adapters": {"lora": {"rank": 2}},
    "episodes that failed": {"broken": True},
}


@pytest.mark.parametrize("name", CASES)
def test_no_figure_and_no_weight_differs(name: str) -> None:
    plain, scored, weights = played(reuse=False, **CASES[name])
    curve, fewer, same = played(reuse=True, **CASES[name])
    assert curve == plain
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert fewer < scored


WHOLE: dict[str, dict[str, Any]] = {
    "opsd": {"policy_coefficient": 0.0, "gate": NoGate(), "divergence": ReverseKL()},
    "the gate's expectation": {"divergence": GatedExpected()},
    "a prompt every turn": {"context": "window", "gate": NoGate(), "divergence": ReverseKL()},
}


@pytest.mark.parametrize("source", [TeacherSource.CURRENT, TeacherSource.INITIAL])
@pytest.mark.parametrize("name", WHOLE)
def test_a_teacher_that_is_asked_in_the_update_is_not_asked_before(name: str, source: TeacherSource) -> None:
    """Its rows lie beside others there, which shows in the last bits of its log-probs, and of nothing learned."""
    settings = WHOLE[name] | {"teacher": HintTeacher(source=source)}
    plain, scored, weights = played(reuse=False, **settings)
    curve, fewer, same = played(reuse=True, **settings)
    assert curve == {step: pytest.approx(metrics, abs=1e-5) for step, metrics in plain.items()}
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert fewer < scored


NEEDED: dict[str, dict[str, Any]] = {
    "a KL in the reward": {"kl_kind": "k1_in_reward", "kl_coefficient": 0.1},
    "a gate centred on the step": {"gate": CentredGate(baseline="step_mean")},
    "shaped advantages": {"shaping": RLSD(), "distillation_coefficient": 0.0},
    "a teacher without text": {"teacher": HintTeacher("")},
    "dropout of adapters": {"lora": {"rank": 2, "dropout": 0.2}},
}


@pytest.mark.parametrize("name", NEEDED)
def test_scores_that_something_needs_before_the_update_are_made_before_it(name: str) -> None:
    plain, scored, _ = played(reuse=False, **NEEDED[name])
    curve, same, _ = played(reuse=True, **NEEDED[name])
    assert curve == plain
    assert same == scored


def test_an_iteration_without_a_term_has_its_figures() -> None:
    schedules = Schedules(coefficient=Step(at=1, before=1.0, after=0.0), policy=Constant(1.0))
    settings = {"policy_coefficient": 0.0, "kl_coefficient": 0.0, "entropy_coefficient": 0.0, "schedules": schedules}
    curve, _, _ = played(reuse=True, **settings)
    plain, _, _ = played(reuse=False, **settings)
    assert curve == plain
    assert "rollout/entropy" in curve[2]
    assert "loss/distillation" not in curve[2]
