"""``loss_aggregation=reference_code`` in a run: every micro-batch has the loss that the paper's code gives it."""

from __future__ import annotations

import pytest
from plain_loops import total

from sdar.errors import UserError
from toys.training import HintTeacher, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

REFERENCE_CODE = {"context": "window", "rows_per_step": 8, "micro_batch_rows": 2}
TOKEN_MEAN = REFERENCE_CODE | {"micro_batch_rows": None}


def run(iterations=1, settings=REFERENCE_CODE, **others):
    """The trained module, its curve, and the loss of every micro-batch in the order of their backward passes."""
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), **settings, **others)
    losses = []
    backward = module.manual_backward

    def remember(loss):
        losses.append(float(loss.detach()))
        backward(loss)

    module.manual_backward = remember
    memory = train(module, toy_datamodule(policy, context="window"), iterations)
    return module, memory.curve(), losses


def tokens_of(module, row):
    """The row's tokens as plain numbers; with so small a learning rate the student is still the old policy."""
    prepared = module.report.prepared
    batch = prepared.batch
    return [
        {
            "log_prob": float(batch.old_log_probs[row, t]),
            "old": float(batch.old_log_probs[row, t]),
            "teacher": float(batch.teacher_log_probs[row, t]),
            "reference": float(batch.reference_log_probs[row, t]),
            "advantage": float(batch.advantage[row, t]),
            "entropy": float(prepared.entropy[row, t]),
        }
        for t in batch.response_mask[row].nonzero()[:, 0].tolist()
    ]


def test_every_micro_batch_has_its_own_mean_and_a_short_step_counts_for_less():
    """Token mean of each micro-batch of 2 rows, divided by the 4 micro-batches of a whole step of 8 rows."""
    module, _, losses = run(learning_rate=1e-7)
    prepared = module.report.prepared
    rows = list(range(len(prepared.batch)))
    assert len(rows) % 8 != 0, "the last step must be a short one"
    micro_batches = [part for step in prepared.steps for part in step.micro_batches]
    assert micro_batches == [rows[start : start + 2] for start in range(0, len(rows), 2)]
    for part, loss in zip(micro_batches, losses, strict=True):
        tokens = [tokens_of(module, row) for row in part]
        plain, *_ = total(tokens, module.method.objective, num_tokens=4 * sum(map(len, tokens)))
        assert loss == pytest.approx(plain, rel=1e-3, abs=1e-5)


def test_an_optimizer_step_is_taken_for_every_so_many_rows_in_order():
    module, _, losses = run()
    steps = module.report.prepared.steps
    assert [step.rows for step in steps[:-1]] == [list(range(8 * k, 8 * k + 8)) for k in range(len(steps) - 1)]
    assert len(losses) == sum(len(step.micro_batches) for step in steps)


def test_the_same_seed_gives_the_same_curve_and_another_result_than_token_means():
    first, second = run(iterations=2), run(iterations=2)
    assert same_weights(weights(first[0]), weights(second[0]))
    assert first[1] == second[1]
    other, _, _ = run(iterations=2, settings=TOKEN_MEAN)
    assert not same_weights(weights(first[0]), weights(other))


def test_token_means_take_steps_by_rows_of_nearly_equal_size():
    module, _, _ = run(settings=TOKEN_MEAN)
    sizes = [len(step.rows) for step in module.report.prepared.steps]
    rows = len(module.report.prepared.batch)
    assert sum(sizes) == rows
    assert len(sizes) == -(-rows // 8)
    assert max(sizes) - min(sizes) <= 1


def test_a_growing_conversation_is_refused():
    with pytest.raises(UserError, match=r"rollout\.context=append; set rollout=window"):
        toy_module(toy_policy(), HintTeacher(), **(REFERENCE_CODE | {"context": "append"}))
