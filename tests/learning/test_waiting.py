"""How long processes wait for one another."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from sdar.run.assembly import build_trainer
from toys.runs import settings_of
from toys.training import toy_datamodule, toy_module, toy_policy


@pytest.mark.parametrize(("minutes", "waits"), [(5, 30), (45, 45)])
def test_processes_that_are_alive_are_waited_for_at_least_as_long_as_silent_ones(
    minutes: int, waits: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class ConnectingError(Exception):
        pass

    found: list[timedelta] = []

    def connect(*_: Any, timeout: timedelta, **__: Any) -> None:
        found.append(timeout)
        raise ConnectingError

    monkeypatch.setattr(torch.distributed, "init_process_group", connect)
    settings = settings_of(
        "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", f"rank_timeout_minutes={minutes}"
    )
    trainer = build_trainer(settings | {"run_dir": str(tmp_path), "callbacks": {}, "logger": {}}, [])
    policy = toy_policy()
    with pytest.raises(ConnectingError):
        trainer.fit(toy_module(policy, distillation_coefficient=0.0), datamodule=toy_datamodule(policy))
    assert found == [timedelta(minutes=waits)]
