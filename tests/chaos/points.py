"""Small runs, and the points of an iteration at which they are killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from forked import Strike, at_call, half_written

import sdar.callbacks.checkpoints
import sdar.callbacks.evaluation
import sdar.learning.module
import sdar.run.session
import sdar.run.state
from sdar.learning.datamodule import RolloutDataModule
from sdar.rollout.guard import GuardedPool

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
    "in a rollout": at_call(GuardedPool, "begin_step", 8),
    "after a rollout": at_call(RolloutDataModule, "collect", 2, after=True),
    "after scoring": at_call(sdar.learning.module, "prepare", 2, after=True),
    "before an optimizer step": at_call(torch.optim.AdamW, "step", 3),
    "between two optimizer steps": at_call(torch.optim.AdamW, "step", 3, after=True),
    "before the metrics are logged": at_call(sdar.learning.module, "log_metrics", 2),
    "before the state file is written": at_call(sdar.run.state, "write_record", 2),
    "inside a checkpoint's write": half_written(2),
    "before a checkpoint is renamed": at_call(torch, "save", 2, after=True),
    "before last.ckpt is replaced": at_call(sdar.callbacks.checkpoints, "share_file", 2),
    "between checkpoint and panel": at_call(sdar.callbacks.evaluation, "evaluate", 3),
    "inside the write after the panel": half_written(3),
    "before the table": at_call(sdar.run.session, "final_table", 1),
}
TWO = ["trainer=ddp", "trainer.accelerator=cpu"]
"""Two processes."""
