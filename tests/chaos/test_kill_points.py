"""A run that is killed at any point of an iteration goes on, and ends with every figure of a run that was not."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from forked import Strike, at_call, fork_run, half_written, same, scalars, state

import sdar.callbacks.base
import sdar.callbacks.checkpoints
import sdar.callbacks.evaluation
import sdar.learning.module
import sdar.policy.checkpoint_file
import sdar.run.session
import sdar.run.state
from sdar.learning.datamodule import RolloutDataModule
from sdar.rollout.guard import GuardedPool

pytestmark = [pytest.mark.chaos, pytest.mark.e2e]

SMALL = [
    "experiment=smoke",
    "trainer.max_epochs=3",
    "environment.num_tasks=[12,6,6]",
    "environment.max_turns=2",
    "rollout.sampling.max_response_tokens=8",
    "evaluation.panel_size=2",
    "evaluation.every_n_iterations=2",
    "evaluation.baselines=false",
    "optimizer.episodes_per_step=2",
    "threads=1",
]
RUNS: Mapping[str, Sequence[str]] = {
    "sdar": [],
    "ucb, ema, feedback, warm-up": [
        "retrieval=ucb",
        "teacher.source=ema",
        "schedule=feedback",
        "optimizer.warmup_steps=5",
    ],
    "adapters with dropout": ["model.lora={rank: 4, alpha: 8, dropout: 0.1}"],
}
# The second of three iterations: its panel is played, two optimizer steps are made, three checkpoints are written so
# far (one after the first iteration, and one before and one after the panel of the second).
POINTS: Mapping[str, Strike] = {
    "in a rollout": at_call(GuardedPool, "step", 8),
    "after a rollout": at_call(RolloutDataModule, "collect", 2, after=True),
    "after scoring": at_call(sdar.learning.module, "prepare", 2, after=True),
    "before an optimizer step": at_call(torch.optim.AdamW, "step", 3),
    "between two optimizer steps": at_call(torch.optim.AdamW, "step", 3, after=True),
    "before the metrics are logged": at_call(sdar.learning.module, "log_metrics", 2),
    "before the state file is written": at_call(sdar.run.state, "write_record", 2),
    "inside a checkpoint's write": half_written(2),
    "before a checkpoint is renamed": at_call(sdar.policy.checkpoint_file.os, "fsync", 4),
    "before last.ckpt is replaced": at_call(sdar.callbacks.checkpoints, "share_file", 2),
    "between checkpoint and panel": at_call(sdar.callbacks.evaluation, "evaluate", 3),
    "inside the write after the panel": half_written(3),
    "before the table": at_call(sdar.run.session, "final_table", 1),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs that were not killed."""
    folders = {name: tmp_path_factory.mktemp("whole") / "run" for name in RUNS}
    for name, folder in folders.items():
        log = folder.parent / "log"
        assert fork_run([*SMALL, *RUNS[name], f"run_dir={folder}"], log) == [0], log.read_text()
    return folders


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_with_the_figures_of_one_that_was_not(
    name: str, point: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    arguments, log = [*SMALL, *RUNS[name], f"logs_dir={tmp_path}"], tmp_path / "log"
    assert fork_run([*arguments, f"run_dir={tmp_path}/killed"], log, POINTS[point]) == [-signal.SIGKILL], (
        log.read_text()
    )
    rest = tmp_path / "rest"
    assert fork_run([*arguments, f"run_dir={rest}", "ckpt_path=last"], log) == [0], log.read_text()
    assert scalars(rest) == scalars(whole[name])
    assert same(state(rest / "checkpoints/last.ckpt"), state(whole[name] / "checkpoints/last.ckpt"))


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    log = folder.parent / "log"
    assert fork_run([*SMALL, *TWO, f"run_dir={folder}"], log, ranks=2) == [0, 0], log.read_text()
    return folder


TWO = ["trainer=ddp", "trainer.accelerator=cpu"]


@pytest.mark.parametrize("point", POINTS)
def test_two_ranks_that_are_killed_end_with_the_figures_of_two_that_were_not(
    point: str, whole_of_two: Path, tmp_path: Path
) -> None:
    arguments, log = [*SMALL, *TWO, f"logs_dir={tmp_path}"], tmp_path / "log"
    killed = fork_run([*arguments, f"run_dir={tmp_path}/killed"], log, POINTS[point], ranks=2)
    assert -signal.SIGKILL in killed, log.read_text()
    rest = tmp_path / "rest"
    assert fork_run([*arguments, f"run_dir={rest}", "ckpt_path=last"], log, ranks=2) == [0, 0], log.read_text()
    assert scalars(rest) == scalars(whole_of_two)
    assert same(state(rest / "checkpoints/last.ckpt"), state(whole_of_two / "checkpoints/last.ckpt"))
