"""Steps whose loss or gradient is not finite are skipped, counted, and end the run when there are too many in a row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sdar.errors import RunFailed
from sdar.objective.estimator import AdvantageEstimator
from toys.training import Memory, same_weights, toy_datamodule, toy_module, toy_policy, toy_trainer, weights

STEPS = 2
"""Optimizer steps of an iteration."""


class SometimesNotANumber(AdvantageEstimator):
    """Advantages of 1, and of nan in the iterations that are named."""

    def __init__(self, *iterations: int, first: int = 0) -> None:
        self.iterations = iterations
        self.next = first

    def turns(self, episodes: Any) -> Any:
        value = math.nan if self.next in self.iterations else 1.0
        self.next += 1
        return [[value] * len(episode.turns) for episode in episodes]


def run(
    iterations: int, advantage: AdvantageEstimator, save: Any = None, ckpt_path: Any = None, **settings: Any
) -> tuple[Any, Memory]:
    policy, memory = toy_policy(), Memory()
    module = toy_module(policy, advantage=advantage, distillation_coefficient=0.0, **settings)
    trainer = toy_trainer(iterations, logger=memory)
    trainer.fit(module, datamodule=toy_datamodule(policy), ckpt_path=ckpt_path, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    return module, memory


def test_bad_steps_are_skipped_and_counted_and_nothing_moves(caplog: pytest.LogCaptureFixture) -> None:
    before, _ = run(1, SometimesNotANumber(), warmup_steps=5)
    module, memory = run(2, SometimesNotANumber(1), warmup_steps=5)
    assert same_weights(weights(before), weights(module))
    assert all(math.isfinite(value) for figures in memory.steps.values() for value in figures.values())
    assert [memory.steps[i]["train/skipped_steps"] for i in range(2)] == [0, STEPS]
    assert "loss/total" not in memory.steps[1]
    assert "iteration 1, optimizer step 2 of 2: the loss is nan" in caplog.text
    _, memory = run(3, SometimesNotANumber(1), warmup_steps=5)
    assert memory.steps[2]["train/learning_rate"] == pytest.approx(3e-3 * 4 / 6), "the warm-up waits, too"


def test_a_good_step_ends_the_row() -> None:
    run(4, SometimesNotANumber(0, 2), max_bad_steps=STEPS)


@pytest.mark.parametrize("limit", [0, 3])
def test_too_many_in_a_row_end_the_run_with_one_sentence(limit: int) -> None:
    message = (
        rf"^iteration {limit // STEPS}, optimizer step {limit % STEPS + 1} of 2: the loss is nan .* that makes "
        rf"{limit + 1} in a row, and optimizer\.max_bad_steps={limit}: .*optimizer\.learning_rate"
    )
    with pytest.raises(RunFailed, match=message) as caught:
        run(3, SometimesNotANumber(0, 1, 2), max_bad_steps=limit)
    assert "\n" not in str(caught.value)


def test_a_resumed_run_goes_on_counting(tmp_path: Any) -> None:
    run(1, SometimesNotANumber(0), save=tmp_path / "one.ckpt", max_bad_steps=STEPS)
    with pytest.raises(RunFailed, match=r"iteration 1, optimizer step 1 of 2.*makes 3 in a row"):
        run(2, SometimesNotANumber(1, first=1), ckpt_path=tmp_path / "one.ckpt", max_bad_steps=STEPS)


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e30])
def test_gradients_that_adam_cannot_square_are_bad(value: float) -> None:
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0, max_bad_steps=0, max_grad_norm=None)
    before = weights(module)
    module.model.model.norm.weight.register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(RunFailed, match=r"the gradient's norm (inf|nan|4e\+30);"):
        toy_trainer(1).fit(module, datamodule=toy_datamodule(policy))
    assert same_weights(before, weights(module))
