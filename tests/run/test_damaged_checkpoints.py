"""Checkpoints whose file is whole and whose parts have another shape: told in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sdar.errors import UserError
from sdar.run.resume import check_checkpoint, restoring
from toys.training import toy_datamodule, toy_module, toy_policy, toy_trainer

WRONG = [
    *(("loops", value) for value in (None, 5, {}, {"fit_loop": 5}, [], torch.zeros(2))),
    *(("loops/fit_loop/epoch_progress/current/processed", value) for value in ("x", -1, None, [1], math.inf)),
    *(("optimizer_states", value) for value in (None, [], [5], {}, [{"state": {}, "param_groups": []}])),
    *(("lr_schedulers", value) for value in (None, [], [5], [{}])),
    *(("sdar_schedules", value) for value in (None, 5, "x", [1])),
    *(("sdar_bad_steps", value) for value in ("x", None, [1], {})),
    *(("sdar", value) for value in (None, 5, {}, "x")),
    *(("state_dict", value) for value in (None, 5, {}, {"model": 5})),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("saved") / "last.ckpt"
    policy = toy_policy()
    trainer = toy_trainer(1)
    trainer.fit(toy_module(policy, distillation_coefficient=0.0), datamodule=toy_datamodule(policy))
    trainer.save_checkpoint(path)
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def changed(saved: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    found: dict[str, Any] = dict(saved)
    *names, last = place.split("/")
    inner = found
    for name in names:
        inner[name] = copy(inner[name])
        inner = inner[name]
    inner[last] = value
    return found


@pytest.mark.parametrize(("place", "value"), WRONG, ids=str)
def test_a_part_of_another_shape_is_told_before_any_work(
    saved: dict[str, Any], place: str, value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(changed(saved, place, value), path)
    module = toy_module(toy_policy(), distillation_coefficient=0.0)
    with pytest.raises(UserError, match="ckpt_path") as caught:
        check_checkpoint(path, module, train=True, max_iterations=2)
    assert "\n" not in str(caught.value)


def test_what_the_trainer_cannot_restore_is_told_and_other_errors_are_not(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"part of another shape.*KeyError: 'state_dict'.*set train=false"),
        restoring(tmp_path),
    ):
        raise KeyError("state_dict")
    with pytest.raises(KeyError), restoring(tmp_path, lambda: True):
        raise KeyError("a defect of training")
    with pytest.raises(UserError, match="AssertionError"), restoring(tmp_path):
        raise AssertionError
    with pytest.raises(KeyError), restoring(None):
        raise KeyError("a defect of a fresh run")
