"""Trains on two processes for ``tests/test_ddp.py``; run as a script, since DDP starts it again for each rank."""

from __future__ import annotations

import sys

import torch

from sdar.callbacks.evaluation import PanelEvaluation
from sdar.evaluation.panel import make_panel
from sdar.rollout.collector import Collector, SamplingConfig
from toy_training import (
    LIMIT,
    HintTeacher,
    LettersEnvironment,
    Memory,
    toy_datamodule,
    toy_module,
    toy_policy,
    toy_trainer,
)

SETTINGS = {"learning_rate": 1e-3, "token_budget": 300}


def datamodule(policy, broken, context):
    """In the broken case one of the two tasks, and so one rank in every iteration, only ever ends by an error."""
    count = 2 if broken else 4
    environment = LettersEnvironment(tasks=count, broken=broken)
    return toy_datamodule(policy, environment=environment, tasks=count, context=context)


def panel_evaluation(policy):
    environment = LettersEnvironment()
    judge = Collector(policy, environment, SamplingConfig(0.4, 1.0, 0, LIMIT), max_concurrent_episodes=4)
    return PanelEvaluation(judge, make_panel(environment, "valid", 5, 0), seed=0, every_n_iterations=5)


def main(folder: str, broken: bool, context: str) -> None:
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), context=context, **SETTINGS)
    memory = Memory()
    trainer = toy_trainer(
        2,
        logger=memory,
        callbacks=[panel_evaluation(policy)],
        devices=2,
        strategy="ddp",
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=datamodule(policy, broken, context))
    torch.save(module.state_dict(), f"{folder}/weights-{trainer.global_rank}.pt")
    if trainer.is_global_zero:
        torch.save(memory.curve(), f"{folder}/curve.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "broken", sys.argv[3])
