"""What a run looks after on the disk before and beside its checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from sdar.errors import UserError
from sdar.run.saving import check_space
from sdar.run.stopping import PROFILE_FILE, write_profile_to
from toys.training import toy_datamodule, toy_module, toy_policy, toy_trainer


def test_a_run_starts_only_where_a_checkpoint_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights that are trained, and two moments of each."""
    module = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False).requires_grad_(False))
    needed = 3 * 4 * 64 * 64
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    check_space(tmp_path / "not" / "yet", module)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(UserError, match=r"GiB are free; make room, or set logs_dir to a folder of another disk$"):
        check_space(tmp_path / "not" / "yet", module)


def test_a_profile_is_in_the_run_folder(tmp_path: Path) -> None:
    policy = toy_policy()
    trainer = toy_trainer(1, profiler="simple")
    write_profile_to(trainer, tmp_path)
    trainer.fit(toy_module(policy, distillation_coefficient=0.0), datamodule=toy_datamodule(policy))
    assert "run_training_epoch" in (tmp_path / PROFILE_FILE).read_text()
