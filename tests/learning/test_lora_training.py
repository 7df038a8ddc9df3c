"""Promises of training adapters, and of telling checkpoints of different models apart."""

from __future__ import annotations

import pytest
import torch
from test_training import GRPO, last_checkpoint, run

from sdar.errors import UserError
from sdar.learning.supervision import SolvedEpisodes
from sdar.policy.checkpoint import CHECKPOINT_KEY, check_origin, load_student, origin
from sdar.policy.dropout import keyed_draws
from sdar.policy.log_probs import score_tokens
from toys.training import HintTeacher, models_alive, same_weights, toy_module, toy_policy, weights

LORA = {"rank": 4}


def adapters(**settings):
    return toy_policy(lora=LORA | settings)


def trained(module):
    return {name: p for name, p in weights(module).items() if "lora_" in name}


def test_adapters_move_and_the_frozen_weights_stay():
    policy = adapters()
    alive = models_alive()
    module, curve = run(iterations=2, policy=policy, teacher=HintTeacher())
    assert models_alive() == alive, "the reference is the model itself, and no copy"
    before, after = weights(toy_module(adapters(), **GRPO)), weights(module)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(trained(module))
    assert curve[1]["loss/kl"] > 0


def test_the_reference_is_the_model_with_its_adapters_off():
    """Equal to what a run of all weights with a copy scores: before the first update nothing differs."""
    module, _ = run(iterations=2, policy=adapters(), **GRPO)
    batch = module.report.prepared.batch
    frozen = toy_policy().model
    with torch.no_grad():
        expected = score_tokens(frozen, batch.ids, batch.attention_mask, batch.response_mask).log_probs
    torch.testing.assert_close(batch.reference_log_probs, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(batch.old_log_probs, expected, atol=1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_first_ratio_is_exactly_one_with_adapters(precision):
    _, curve = run(
        iterations=1,
        policy=adapters(),
        episodes_per_step=None,
        reuse_scores=False,
        max_tokens_per_micro_batch=150,
        trainer={"precision": precision},
        **GRPO,
    )
    assert curve[0]["train/approx_kl"] == curve[0]["train/clip_fraction"] == curve[0]["loss/kl"] == 0


def test_dropout_of_adapters_acts_in_the_update_alone():
    settings = {"episodes_per_step": None, "reuse_scores": False, "iterations": 2, **GRPO}
    _, with_dropout = run(policy=adapters(dropout=0.5), **settings)
    _, without = run(policy=adapters(), **settings)
    assert without[1]["train/approx_kl"] == 0
    assert with_dropout[1]["train/approx_kl"] > 0


def test_dropout_does_not_depend_on_what_was_drawn_before():
    """It is drawn by its place in the run, and recomputation repeats the draws."""
    settings = {"iterations": 2, "supervision": SolvedEpisodes(coefficient=0.5), **GRPO}
    torch.manual_seed(1)
    first, curve = run(policy=adapters(dropout=0.5), **settings)
    torch.manual_seed(2)
    policy = adapters(dropout=0.5)
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    second, again = run(policy=policy, **settings)
    assert again == curve
    assert same_weights(weights(first), weights(second))
    assert run(policy=adapters(dropout=0.5), seed=2, **settings)[1] != curve


def test_keyed_draws_leave_the_global_generator_alone():
    def draws(*key):
        with keyed_draws(torch.device("cpu"), *key):
            return torch.rand(2).tolist()

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    keys = [(seed, "dropout", step, part) for seed in (1, 2) for step in (0, 1) for part in (0, 1)]
    assert len({tuple(draws(*key)) for key in [*keys, *keys]}) == len(keys)
    assert torch.equal(torch.rand(1), expected)


def test_a_resumed_run_of_adapters_has_the_curve_of_the_run_that_was_not_stopped(tmp_path):
    settings, some = {"teacher": HintTeacher()}, {"dropout": 0.5}
    whole, whole_curve = run(iterations=4, policy=adapters(**some), **settings)
    saving = {"callbacks": [last_checkpoint(tmp_path)], "trainer": {"enable_checkpointing": True}}
    _, first = run(iterations=2, policy=adapters(**some), **saving, **settings)
    path = tmp_path / "last.ckpt"
    resumed, second = run(iterations=4, policy=adapters(**some), ckpt_path=str(path), **settings)
    assert first | second == whole_curve
    assert same_weights(weights(whole), weights(resumed))
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == set(trained(whole))
    assert checkpoint[CHECKPOINT_KEY]["initial_weights"] == "weights-0"
    student = toy_module(adapters(**some), **GRPO)
    load_student(student, student.policy, path)
    assert all(torch.equal(value, checkpoint["state_dict"][name]) for name, value in trained(student).items())


def test_a_checkpoint_of_another_kind_of_training_is_refused(tmp_path):
    saving = {"enable_checkpointing": True}
    run(iterations=1, policy=adapters(), callbacks=[last_checkpoint(tmp_path)], trainer=saving, **GRPO)
    for other, words in ((toy_policy(), "model.lora=null"), (adapters(rank=2), "rank: 2")):
        module = toy_module(other, **GRPO)
        with pytest.raises(UserError, match=r"rank: 4") as caught:
            load_student(module, other, tmp_path / "last.ckpt")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused_naming_both():
    ours = toy_policy()
    record = origin(ours)
    check_origin({CHECKPOINT_KEY: record}, ours)
    for change, words in (
        (
            {"architecture": "LlamaForCausalLM", "model": "other"},
            ("LlamaForCausalLM", "Qwen3ForCausalLM", "'other'", "'toy'"),
        ),
        ({"initial_weights": "abc", "model": "other"}, ("'abc'", "'weights-0'", "'other'", "'toy'")),
    ):
        with pytest.raises(UserError) as caught:
            check_origin({CHECKPOINT_KEY: record | change}, ours)
        assert all(word in str(caught.value) for word in words)
    earlier = {name: record[name] for name in ("model", "initial_weights")}
    check_origin({CHECKPOINT_KEY: earlier}, ours)


def test_adapters_that_are_missing_from_a_checkpoint_are_noticed(tmp_path):
    saving = {"enable_checkpointing": True}
    run(iterations=1, policy=adapters(), callbacks=[last_checkpoint(tmp_path)], trainer=saving, **GRPO)
    path = tmp_path / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"].popitem()
    torch.save(checkpoint, path)
    module = toy_module(adapters(), **GRPO)
    with pytest.raises(UserError, match="adapters do not match those of 'toy'"):
        load_student(module, module.policy, path)


def test_a_model_without_anything_to_train_is_refused():
    policy = toy_policy()
    policy.model.requires_grad_(False)
    with pytest.raises(UserError, match=r"'toy' has no parameter to train"):
        toy_module(policy, **GRPO)


def test_a_first_step_that_moves_nothing_stops_the_run():
    """Steps of 1e-9 are lost in bfloat16 weights: the run would spend days and learn nothing."""
    policy = toy_policy(dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.copy_(parameter.abs() + 1)  # no number so small that the step would count
    with pytest.raises(UserError, match=r"optimizer\.learning_rate=1e-09.*moved none of the .*bfloat16") as caught:
        run(iterations=1, policy=policy, learning_rate=1e-9, weight_decay=0.0, **GRPO)
    assert "\n" not in str(caught.value)
