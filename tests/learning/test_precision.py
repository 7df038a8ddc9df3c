"""Rollouts compute in the run's precision, and how far the sampler was from the scorer is logged."""

from __future__ import annotations

import pytest
import torch

from sdar.policy.language_model import autocast_of
from toys.training import Memory, toy_datamodule, toy_module, toy_policy, toy_trainer


@pytest.mark.parametrize("reuse", [True, False])
def test_a_mixed_run_plays_mixed_and_logs_the_mismatch(reuse: bool) -> None:
    policy, memory = toy_policy(), Memory()
    module = toy_module(policy, distillation_coefficient=0.0, reuse_scores=reuse, episodes_per_step=None)
    toy_trainer(1, logger=memory, precision="bf16-mixed").fit(module, datamodule=toy_datamodule(policy))
    assert policy.compute_dtype is torch.bfloat16
    mismatch = memory.steps[0]["rollout/sampler_mismatch"]
    assert 0 <= mismatch < 1e-3
    assert memory.steps[0]["train/clip_fraction"] == 0, "the first step's ratio is 1 whoever sampled"


def test_a_float32_run_has_no_mismatch_to_log() -> None:
    policy, memory = toy_policy(), Memory()
    module = toy_module(policy, distillation_coefficient=0.0)
    toy_trainer(1, logger=memory).fit(module, datamodule=toy_datamodule(policy))
    assert policy.compute_dtype is None
    assert "rollout/sampler_mismatch" not in memory.steps[0]


def test_only_mixed_precision_computes_in_another_dtype_than_the_weights() -> None:
    assert autocast_of("bf16-mixed") is torch.bfloat16
    assert [autocast_of(precision) for precision in ("32-true", "bf16-true", None)] == [None] * 3
