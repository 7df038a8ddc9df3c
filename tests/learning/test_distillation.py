"""Promises of a training run about teacher, gate, divergence and schedule, on the toy environment."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.errors import UserError
from sdar.learning import loss
from sdar.learning.module import TEACHER_KEY
from sdar.objective.divergence import Sampled, SampledReverseKL
from sdar.objective.full_vocabulary import ForwardKL, GatedExpected, JensenShannon, ReverseKL
from sdar.objective.gate import CentredGate, EntropyGate, GapGate, NoGate, SoftOrGate
from sdar.objective.schedule import Constant, Feedback, Schedules, WarmDown
from sdar.teacher.weights import TeacherSource, same_tokenizer
from toys.models import toy_tokenizer
from toys.training import HintTeacher, learned, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

METHODS = {
    "sdar": {"gate": GapGate(), "divergence": Sampled(), "source": "old"},
    "soft_or": {"gate": SoftOrGate(), "divergence": Sampled(), "source": "current"},
    "entropy": {"gate": EntropyGate(), "divergence": SampledReverseKL(), "source": "initial"},
    "opsd": {"gate": NoGate(), "divergence": ReverseKL(), "source": "current"},
    "forward_kl": {"gate": GapGate(), "divergence": ForwardKL(), "source": "ema"},
    "jsd": {"gate": NoGate(), "divergence": JensenShannon(top_k=20), "source": "initial"},
    "kept": {"gate": NoGate(), "divergence": ReverseKL(), "source": "old", "keep_hidden": True},
    "centred": {"gate": CentredGate(), "divergence": Sampled(importance_weighted=True), "source": "old"},
    "step_mean": {"gate": CentredGate(baseline="step_mean"), "divergence": Sampled(), "source": "initial"},
    "expected": {"gate": GapGate(), "divergence": GatedExpected(), "source": "initial"},
    "half_gate": {"gate": GapGate(beta=0.0), "divergence": Sampled(), "source": "old"},
}


both_contexts = pytest.mark.parametrize("context", ["append", "window"])


def run(method=None, hint="Hint: say bbb.\n\n", iterations=1, ckpt_path=None, callbacks=(), trainer=None, **settings):
    pieces = dict(METHODS[method]) if method else {}
    objective = {name: pieces.pop(name) for name in ("gate", "divergence") if name in pieces}
    if "source" in pieces:
        pieces["source"] = TeacherSource(pieces["source"])
    policy = settings.pop("policy", None) or toy_policy()
    data = {"context": settings["context"]} if "context" in settings else {}
    module = toy_module(policy, HintTeacher(hint, **pieces) if method else None, **objective, **settings)
    memory = train(
        module, toy_datamodule(policy, **data), iterations, ckpt_path, callbacks=callbacks, **(trainer or {})
    )
    return module, memory.curve()


@pytest.fixture(scope="module")
def grpo():
    module, curve = run(iterations=2, distillation_coefficient=0.0)
    return weights(module), curve


@pytest.fixture(scope="module")
def one_iteration_of_grpo():
    return weights(run(distillation_coefficient=0.0)[0])


@pytest.mark.parametrize("method", METHODS)
def test_coefficient_zero_is_bit_equal_to_grpo_whatever_the_method(method, grpo):
    module, curve = run(method, iterations=2, distillation_coefficient=0.0)
    assert same_weights(weights(module), grpo[0])
    for step, figures in grpo[1].items():
        assert {name: curve[step][name] for name in learned(figures)} == learned(figures)
        assert curve[step]["curriculum/gap_std"] > 0
        assert curve[step]["objective/distillation_coefficient"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_the_teacher(method, one_iteration_of_grpo):
    module, curve = run(method, distillation_coefficient=0.5)
    assert not same_weights(weights(module), one_iteration_of_grpo)
    assert all(math.isfinite(value) for value in curve[0].values())
    assert curve[0]["loss/distillation"] != 0


@both_contexts
@pytest.mark.parametrize("method", METHODS)
def test_an_empty_privileged_block_has_a_gap_of_exactly_zero_in_the_first_step(method, context):
    # The initial weights, their average and the old ones are the student's own there.
    settings = {"episodes_per_step": None, "distillation_coefficient": 0.5, "context": context}
    _, curve = run(method, hint="", **settings)
    assert curve[0]["curriculum/gap_mean"] == curve[0]["curriculum/gap_std"] == 0
    assert curve[0]["objective/gap_mean"] == 0
    assert curve[0]["loss/distillation"] == pytest.approx(0, abs=1e-7)


@both_contexts
def test_with_an_empty_block_the_present_teacher_agrees_with_the_student_in_every_step(context):
    _, curve = run("opsd", hint="", iterations=2, distillation_coefficient=0.5, context=context)
    for figures in curve.values():
        assert figures["objective/gap_mean"] == 0
        assert figures["loss/distillation"] == 0


@both_contexts
@pytest.mark.parametrize("method", ["opsd", "jsd", "kept", "soft_or", "step_mean", "expected"])
def test_the_cut_into_micro_batches_does_not_change_the_update(method, context):
    settings = {"distillation_coefficient": 0.5, "episodes_per_step": None, "context": context}
    first, one = run(method, max_tokens_per_micro_batch=200, **settings)
    second, other = run(method, max_tokens_per_micro_batch=100_000, **settings)
    assert one[0]["loss/distillation"] == pytest.approx(other[0]["loss/distillation"], rel=1e-4)
    assert one[0]["train/grad_norm"] == pytest.approx(other[0]["train/grad_norm"], rel=1e-3)
    for name, tensor in weights(first).items():
        torch.testing.assert_close(tensor, weights(second)[name], rtol=0, atol=2e-4)


def test_a_kept_teacher_is_the_present_one_for_a_single_step_and_stays_for_later_ones():
    single = {"distillation_coefficient": 0.5, "episodes_per_step": None}
    assert same_weights(weights(run("kept", **single)[0]), weights(run("opsd", **single)[0]))
    several = {"distillation_coefficient": 0.5, "episodes_per_step": 4}
    assert not same_weights(weights(run("kept", **several)[0]), weights(run("opsd", **several)[0]))


def test_only_the_present_teacher_moves_with_the_optimizer():
    settings = {"distillation_coefficient": 0.5, "gate": GapGate(), "divergence": Sampled()}
    figures = {}
    for source in ("old", "current"):
        policy = toy_policy()
        teacher = HintTeacher(source=TeacherSource(source))
        module = toy_module(policy, teacher, **settings)
        figures[source] = train(module, toy_datamodule(policy), 1).curve()[0]
    assert figures["old"]["curriculum/gap_mean"] == figures["current"]["curriculum/gap_mean"]
    assert figures["old"]["objective/gap_mean"] != figures["current"]["objective/gap_mean"]


def test_no_gate_and_no_schedule_costs_an_extra_forward_pass():
    passes = {}
    for name, gate in {"gap": GapGate(), "entropy": EntropyGate(), "soft_or": SoftOrGate(), "none": NoGate()}.items():
        policy = toy_policy()
        module = toy_module(policy, HintTeacher(), gate=gate, entropy_coefficient=0.0)
        calls = []
        module.model.model.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        train(module, toy_datamodule(policy), 1)
        passes[name] = len(calls)
    assert len(set(passes.values())) == 1, passes


def test_the_average_follows_the_student_by_its_decay():
    policy = toy_policy()
    before = weights(toy_module(policy, distillation_coefficient=0.0))
    module = toy_module(policy, HintTeacher(source=TeacherSource.EMA, ema_decay=0.75))
    train(module, toy_datamodule(policy), 1)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    averaged = checkpoint[TEACHER_KEY]
    assert averaged
    for name, value in averaged.items():
        expected = 0.75 * before[f"model.{name}"] + 0.25 * weights(module)[f"model.{name}"]
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("method", ["forward_kl", "sdar"])
def test_a_resumed_run_has_the_curve_of_the_run_that_was_not_stopped(method, tmp_path):
    settings = {"distillation_coefficient": 0.5}

    def schedules():
        return Schedules(Feedback(gain=3.0, decay=0.5), WarmDown(zero_at=9))

    saving = {"enable_checkpointing": True}

    def last():
        return [ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, save_on_train_epoch_end=True)]

    whole, whole_curve = run(method, iterations=3, schedules=schedules(), **settings)
    _, first = run(method, iterations=2, callbacks=last(), trainer=saving, schedules=schedules(), **settings)
    resumed, second = run(
        method,
        iterations=3,
        callbacks=last(),
        trainer=saving,
        ckpt_path=str(tmp_path / "last.ckpt"),
        schedules=schedules(),
        **settings,
    )
    assert first | second == whole_curve
    assert same_weights(weights(whole), weights(resumed))
    factors = [figures["objective/distillation_coefficient"] for figures in whole_curve.values()]
    assert factors[0] == 0.5
    assert len(set(factors)) == 3


def test_a_checkpoint_of_another_kind_of_teacher_is_refused(tmp_path):
    saving = {"enable_checkpointing": True}
    last = [ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0, save_on_train_epoch_end=True)]
    run("sdar", callbacks=last, trainer=saving)
    with pytest.raises(UserError, match=r"another teacher\.source; this run has 'ema'"):
        run("forward_kl", iterations=2, ckpt_path=str(tmp_path / "last.ckpt"))


def test_a_schedule_at_zero_is_bit_equal_to_grpo(grpo):
    off = Schedules(coefficient=Constant(0.0))
    module, curve = run("sdar", iterations=2, schedules=off, distillation_coefficient=0.5)
    assert same_weights(weights(module), grpo[0])
    assert curve[0]["objective/distillation_coefficient"] == 0


def test_a_schedule_that_takes_out_the_only_term_leaves_the_weights_alone():
    alone = {"policy_coefficient": 0.0, "kl_coefficient": 0.0, "entropy_coefficient": 0.0}
    module, curve = run("opsd", schedules=Schedules(coefficient=Constant(0.0)), distillation_coefficient=1.0, **alone)
    assert same_weights(weights(module), weights(toy_module(toy_policy(), distillation_coefficient=0.0)))
    assert "loss/total" not in curve[0]


def test_beta_follows_its_schedule_in_the_curriculum_too():
    _, curve = run("sdar", schedules=Schedules(beta=Constant(0.0)))
    assert curve[0]["objective/beta"] == 0
    assert curve[0]["curriculum/gate_mean"] == curve[0]["objective/gate_mean"] == 0.5


def test_another_model_of_the_same_weights_is_the_initial_teacher():
    settings = {"distillation_coefficient": 0.5, "gate": NoGate(), "divergence": ReverseKL()}
    trained = []
    for weights_of in ({"source": TeacherSource.INITIAL}, {"source": TeacherSource.OTHER, "other": toy_policy()}):
        policy = toy_policy()
        module = toy_module(policy, HintTeacher(**weights_of), **settings)
        train(module, toy_datamodule(policy), 2)
        trained.append(weights(module))
    assert same_weights(*trained)


def test_another_model_with_another_tokenizer_is_refused():
    other = toy_policy()
    other.tokenizer = toy_tokenizer()
    other.tokenizer.add_tokens(["mug"])
    with pytest.raises(UserError, match=r"teacher\.other must have the tokenizer of the student 'toy'"):
        toy_module(toy_policy(), HintTeacher(source=TeacherSource.OTHER, other=other))
    assert same_tokenizer(toy_tokenizer(), toy_tokenizer())


def test_an_average_of_sixteen_bit_weights_is_refused():
    with pytest.raises(UserError, match=r"teacher\.source=ema needs float32.*bfloat16.*model\.dtype=float32"):
        toy_module(toy_policy(dtype=torch.bfloat16), HintTeacher(source=TeacherSource.EMA))


def test_an_average_whose_student_a_trainer_turns_into_sixteen_bits_is_refused():
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(source=TeacherSource.EMA))
    with pytest.raises(UserError, match=r"teacher\.source=ema needs float32.*bfloat16.*trainer\.precision=32-true"):
        train(module, toy_datamodule(policy), 1, precision="bf16-true")


def test_adapters_on_sixteen_bit_weights_have_a_float32_average():
    policy = toy_policy(dtype=torch.bfloat16, lora={"rank": 2})
    module = toy_module(policy, HintTeacher(source=TeacherSource.EMA, ema_decay=0.75), learning_rate=1e-2)
    train(module, toy_datamodule(policy), 2)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    averaged = checkpoint[TEACHER_KEY]
    assert averaged
    assert {value.dtype for value in averaged.values()} == {torch.float32}
    assert any(bool(value.any()) for name, value in averaged.items() if "lora_B" in name)  # these begin at 0


@pytest.mark.parametrize("method", ["opsd", "soft_or"])
def test_no_pass_of_the_teacher_has_more_tokens_than_a_micro_batch(method, monkeypatch):
    """Its rows are longer than the student's; also in the update, where it is asked anew in every step."""
    passes = []
    for name in ("token_states", "score_tokens"):
        plain = getattr(loss, name)

        def counted(model, ids, *rest, plain=plain, **others):
            if not torch.is_grad_enabled():
                passes.append(tuple(ids.shape))
            return plain(model, ids, *rest, **others)

        monkeypatch.setattr(loss, name, counted)
    long = "Hint: say bbb. " * 8
    bounded, _ = run(method, hint=long, distillation_coefficient=0.5, max_tokens_per_micro_batch=600)
    assert passes
    assert all(rows == 1 or rows * width <= 600 for rows, width in passes)
    monkeypatch.undo()
    whole, _ = run(method, hint=long, distillation_coefficient=0.5, max_tokens_per_micro_batch=100_000)
    for name, tensor in weights(bounded).items():
        torch.testing.assert_close(tensor, weights(whole)[name], rtol=0, atol=2e-4)


def test_distributions_of_an_old_teacher_are_refused_by_naming_both_settings():
    with pytest.raises(UserError, match=r"divergence=reverse_kl.*teacher\.source=old"):
        toy_module(toy_policy(), HintTeacher(), divergence=ReverseKL())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_distributions_are_compared_in_float32_under_half_precision(precision):
    _, curve = run("opsd", distillation_coefficient=0.5, trainer={"precision": precision})
    assert curve[0]["loss/distillation"] > 0
    _, empty = run("opsd", hint="", distillation_coefficient=0.5, trainer={"precision": precision})
    assert empty[0]["loss/distillation"] == 0
