"""The strength of a term: norms and cosine add up to the step's gradient, and measuring them changes nothing."""

from __future__ import annotations

import math

import pytest

from sdar.errors import UserError
from sdar.objective.full_vocabulary import ReverseKL
from sdar.objective.gate import NoGate
from sdar.objective.schedule import Schedules, Share, Step
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

ONE_STEP = {"episodes_per_step": None, "distillation_coefficient": 0.3}
TWO_TERMS = {**ONE_STEP, "kl_coefficient": 0.0, "entropy_coefficient": 0.0}


def run(iterations=1, source="old", **settings):
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(source=TeacherSource(source)), **settings)
    return module, train(module, toy_datamodule(policy), iterations).curve()


@pytest.mark.parametrize("form", [{}, {"gate": NoGate(), "divergence": ReverseKL(), "source": "initial"}])
@pytest.mark.parametrize("max_tokens", [200, 100_000])
def test_two_terms_make_up_the_gradient_of_the_step(form, max_tokens):
    measured = {"measure_terms_every_n_iterations": 1, "max_tokens_per_micro_batch": max_tokens}
    _, curve = run(**TWO_TERMS, **form, **measured)
    figures = curve[0]
    policy, distillation = figures["train/grad_norm/policy"], figures["train/grad_norm/distillation"]
    cosine = figures["objective/gradient_cosine"]
    assert -1 <= cosine <= 1
    together = math.sqrt(policy**2 + distillation**2 + 2 * policy * distillation * cosine)
    assert together == pytest.approx(figures["train/grad_norm"], rel=1e-4)
    assert figures["objective/distillation_share"] == pytest.approx(distillation / policy)


def test_measuring_changes_no_weight_and_no_other_figure():
    module, curve = run(2, **ONE_STEP)
    measured, figures = run(2, measure_terms_every_n_iterations=2, **ONE_STEP)
    assert same_weights(weights(module), weights(measured))
    names = [f"train/grad_norm/{term}" for term in ("policy", "distillation", "kl", "entropy")]
    new = {*names, "objective/distillation_share", "objective/gradient_cosine"}
    assert set(figures[0]) - set(curve[0]) == new
    assert set(figures[1]) == set(curve[1])  # every second iteration
    for step in (0, 1):
        same = {name: value for name, value in curve[step].items() if not name.startswith(("time/", "throughput/"))}
        assert {name: figures[step][name] for name in same} == same


def test_the_share_is_proportional_to_the_coefficient():
    shares = []
    for coefficient in (0.3, 0.6):
        settings = {**TWO_TERMS, "distillation_coefficient": coefficient}
        _, curve = run(measure_terms_every_n_iterations=1, **settings)
        shares.append(curve[0]["objective/distillation_share"])
    assert shares[1] == pytest.approx(2 * shares[0], rel=1e-5)


def test_a_share_schedule_brings_the_distillation_to_its_target():
    schedules = Schedules(coefficient=Share(target=0.5, decay=0.0))
    _, curve = run(2, measure_terms_every_n_iterations=1, schedules=schedules, **TWO_TERMS)
    first = curve[0]["objective/distillation_share"]
    assert first != pytest.approx(0.5, rel=0.05)
    assert curve[1]["objective/distillation_coefficient"] == pytest.approx(0.3 * 0.5 / first)


def test_distil_first_and_then_reward():
    schedules = Schedules(coefficient=Step(at=1, before=1.0, after=0.0), policy=Step(at=1))
    _, curve = run(2, measure_terms_every_n_iterations=1, schedules=schedules, **TWO_TERMS)
    assert "train/grad_norm/policy" not in curve[0]
    assert "objective/distillation_share" not in curve[0]
    assert curve[0]["train/grad_norm/distillation"] == pytest.approx(curve[0]["train/grad_norm"], rel=1e-4)
    assert "train/grad_norm/distillation" not in curve[1]
    assert curve[1]["train/grad_norm/policy"] == pytest.approx(curve[1]["train/grad_norm"], rel=1e-4)
    assert curve[1]["objective/distillation_coefficient"] == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"schedules": Schedules(coefficient=Share())}, r"measure_terms_every_n_iterations=0 measures none"),
        ({"schedules": Schedules(beta=Share())}, r"schedule\.beta must be another schedule than Share"),
        ({"schedules": Schedules(policy=Share())}, r"schedule\.policy must be another schedule than Share"),
        (
            {"schedules": Schedules(coefficient=Share()), "policy_coefficient": 0.0},
            r"policy_coefficient=0 has none",
        ),
    ],
)
def test_a_share_without_what_it_follows_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        toy_module(toy_policy(), HintTeacher(), **settings)
