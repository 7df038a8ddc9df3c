"""``loss_aggregation=reference_code`` in a run: the loss of every micro-batch is the one that the paper's code would take."""

from __future__ import annotations

import pytest
from plain_loops import total

from sdar.errors import UserError
from toys.training import HintTeacher, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

RELEASE = {
    "statistics": "release",
    "context": "window",
    "episodes_per_step": None,
    "rows_per_step": 8,
    "micro_batch_rows": 2,
}


def run(iterations=1, **settings):
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), **(RELEASE | settings))
    taken = []
    loss = module._loss

    def remember(prepared, objective, number, rows, counts, sums):
        value = loss(prepared, objective, number, rows, counts, sums)
        taken.append((list(rows), float(value.detach())))
        return value

    module._loss = remember
    memory = train(module, toy_datamodule(policy, context="window"), iterations)
    return module, memory.curve(), taken


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
    module, _, taken = run(learning_rate=1e-7)
    rows = list(range(len(module.report.prepared.batch)))
    expected = [rows[start : start + 2] for start in range(0, len(rows), 2)]
    assert [part for part, _ in taken] == expected
    assert len(rows) % 8 != 0, "the last step must be a short one"
    for part, value in taken:
        tokens = [tokens_of(module, row) for row in part]
        plain, *_ = total(tokens, module.objective, num_tokens=4 * sum(map(len, tokens)))
        assert value == pytest.approx(plain, rel=1e-3, abs=1e-5)


def test_an_optimiser_step_is_taken_for_every_so_many_rows_in_order():
    module, _, taken = run()
    steps = module.report.prepared.steps
    assert [step.rows for step in steps[:-1]] == [list(range(8 * k, 8 * k + 8)) for k in range(len(steps) - 1)]
    assert len(taken) == sum(len(step.micro_batches) for step in steps)


def test_the_same_seed_gives_the_same_curve_and_another_result_than_ours():
    first, second = run(iterations=2), run(iterations=2)
    assert same_weights(weights(first[0]), weights(second[0]))
    assert first[1] == second[1]
    ours, _, _ = run(iterations=2, statistics="episode", micro_batch_rows=None)
    assert not same_weights(weights(first[0]), weights(ours))


def test_ours_takes_steps_by_rows_of_nearly_equal_size():
    module, _, _ = run(statistics="episode", micro_batch_rows=None)
    sizes = [len(step.rows) for step in module.report.prepared.steps]
    rows = len(module.report.prepared.batch)
    assert sum(sizes) == rows
    assert len(sizes) == -(-rows // 8)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("context", ["append"])
def test_a_growing_conversation_is_refused(context):
    with pytest.raises(UserError, match="allowed is rollout=window"):
        toy_module(toy_policy(), HintTeacher(), **(RELEASE | {"context": context}))
