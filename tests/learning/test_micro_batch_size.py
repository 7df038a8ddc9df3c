"""How many tokens a micro-batch holds where no setting says so."""

from __future__ import annotations

import logging

import pytest
import torch

from sdar.learning.optimizer import OptimizerSettings
from toys.methods import method_run
from toys.training import train


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 4096), (torch.device("cuda", 1), 16384), ("mps", 16384)])
def test_the_device_decides_unless_the_setting_does(device, tokens) -> None:
    assert OptimizerSettings().micro_batch_tokens(device) == tokens
    assert OptimizerSettings(max_tokens_per_micro_batch=100).micro_batch_tokens(device) == 100


@pytest.mark.parametrize(("limit", "warned"), [(None, False), (20, True)])
def test_only_a_limit_that_was_set_is_reported_as_exceeded(limit, warned, monkeypatch, caplog) -> None:
    monkeypatch.setattr("sdar.learning.optimizer.CPU_TOKENS", 20)
    module, data = method_run("grpo", max_tokens_per_micro_batch=limit, episodes_per_step=None)
    with caplog.at_level(logging.WARNING, logger="sdar"):
        train(module, data, 1)
    assert any("optimizer.max_tokens_per_micro_batch=20" in message for message in caplog.messages) is warned
    steps = module.report.prepared.steps
    assert len(steps) == 1
    assert len(steps[0].micro_batches) == len(module.report.prepared.batch)  # each row is longer than the limit
