from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddp_run import SETTINGS, datamodule, panel_evaluation
from toy_training import HintTeacher, same_weights, toy_module, toy_policy, train

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(("case", "context"), [("whole", "append"), ("broken", "append"), ("broken", "window")])
def test_two_processes_learn_what_one_process_learns(tmp_path, case, context):
    """Same episodes, same denominators, same weights up to the rounding of another order of addition.

    Also where one of them has nothing to learn from: in the broken case its only task always ends by an error.
    """
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), context=context, **SETTINGS)
    alone = train(
        module, datamodule(policy, case == "broken", context), 2, callbacks=[panel_evaluation(policy)]
    ).curve()

    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    subprocess.run(
        [sys.executable, str(HERE / "ddp_run.py"), str(tmp_path), case, context], env=environ, check=True, timeout=300
    )
    ranks = [torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in range(2)]
    assert same_weights(*ranks)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(ranks[0][name], tensor, rtol=0, atol=2e-4)
    together = torch.load(tmp_path / "curve.pt", weights_only=True)
    assert {step: set(figures) for step, figures in together.items()} == {step: set(alone[step]) for step in alone}
    assert alone[2]["val/n"] == together[2]["val/n"] == 5
    for name, value in alone[0].items():
        assert together[0][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
