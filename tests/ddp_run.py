"""Trains on two processes for ``tests/test_ddp.py``; run as a script, since DDP starts it again for each rank."""

from __future__ import annotations

import sys

import torch

from toy_training import HintTeacher, LettersEnvironment, Memory, toy_datamodule, toy_module, toy_policy, toy_trainer

SETTINGS = {"learning_rate": 1e-3, "token_budget": 300}


def main(folder: str, broken: bool) -> None:
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), **SETTINGS)
    memory = Memory()
    environment = LettersEnvironment(tasks=4, broken=broken)
    trainer = toy_trainer(2, logger=memory, devices=2, strategy="ddp", use_distributed_sampler=False)
    trainer.fit(module, datamodule=toy_datamodule(policy, environment=environment))
    torch.save(module.state_dict(), f"{folder}/weights-{trainer.global_rank}.pt")
    if trainer.is_global_zero:
        torch.save(memory.curve(), f"{folder}/curve.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "broken")
