"""The gate on what an iteration computes: passes through the model and tokens fed, against numbers that are committed.

Whoever computes something twice changes them. Where a change means to: read the new numbers in the failure, and commit
them with it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdar.learning.optimizer import CPU_TOKENS
from sdar.learning.step_plan import plan_steps
from sdar.policy.forward import decoder
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train

GRPO = {"distillation_coefficient": 0.0, "kl_coefficient": 0.0}
SDAR = {"kl_coefficient": 0.0, "episodes_per_step": None}
CASES: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "grpo": (None, GRPO | {"episodes_per_step": None}),
    "grpo, two steps": (None, GRPO),
    "grpo, window": (None, GRPO | {"episodes_per_step": None, "context": "window"}),
    "sdar": ({}, SDAR),
    "sdar, window": ({}, SDAR | {"context": "window"}),
    "sdar, moving teacher": ({"source": TeacherSource.CURRENT}, SDAR | {"episodes_per_step": 6}),
}
"""Teacher and settings of an iteration of 12 episodes."""
EXPECTED: dict[str, dict[str, list[int]]] = {
    "grpo": {
        "played": [18, 632],
        "scored": [0, 0],
        "learned": [2, 948],
        "costs": [862, 0, 0, 862],
    },
    "grpo, two steps": {
        "played": [18, 632],
        "scored": [2, 1092],
        "learned": [2, 1092],
        "costs": [862, 862, 0, 862],
    },
    "grpo, window": {
        "played": [18, 1806],
        "scored": [0, 0],
        "learned": [4, 2087],
        "costs": [1919, 0, 0, 1919],
    },
    "sdar": {
        "played": [18, 632],
        "scored": [5, 767],
        "learned": [2, 948],
        "costs": [862, 0, 706, 862],
    },
    "sdar, window": {
        "played": [18, 1806],
        "scored": [9, 1682],
        "learned": [4, 2087],
        "costs": [1919, 0, 1599, 1919],
    },
    "sdar, moving teacher": {
        "played": [18, 632],
        "scored": [11, 2318],
        "learned": [2, 1092],
        "costs": [862, 862, 1055, 862],
    },
}
"""Passes and padded tokens of playing, of passes without gradient and of the update; tokens of the cost metrics."""

_ROWS = """
324 342 311 328 347 326 341 321 172 310 361 243 276 172 216 339 240 225 365 185 382 331 369 346 327 360 359 360 377 349
380 352 364 311 354 369 348 327 301 314 354 348 322 347 353 354 306 355
"""
ROWS_OF_THE_DEFAULT = [int(length) for length in _ROWS.split()]
"""Tokens of the rows of a default run's first iteration (ALFWorld, seed 1)."""


def counts(teacher: dict[str, Any] | None, settings: dict[str, Any]) -> dict[str, list[int]]:
    policy = toy_policy()
    module = toy_module(policy, None if teacher is None else HintTeacher(**teacher), **settings)
    data = toy_datamodule(policy, context=settings.get("context", "append"))
    found = {"played": [0, 0], "scored": [0, 0], "learned": [0, 0]}
    playing, collect = [False], data.collect

    def played(*arguments: Any, **others: Any) -> Any:
        playing[0] = True
        iteration = collect(*arguments, **others)
        playing[0] = False
        return iteration

    def fed(_: Any, __: Any, given: dict[str, Any]) -> None:
        phase = found["played" if playing[0] else "learned" if torch.is_grad_enabled() else "scored"]
        phase[0] += 1
        phase[1] += given["input_ids"].numel()

    data.collect = played  # type: ignore[method-assign]
    decoder(policy.model).register_forward_pre_hook(fed, with_kwargs=True)
    metrics = train(module, data, 1).steps[0]
    costs = [int(metrics[f"cost/tokens_{name}"]) for name in ("played", "scored", "teacher", "learned")]
    return {**found, "costs": costs}


@pytest.mark.parametrize("case", CASES)
def test_an_iteration_computes_what_it_did(case: str) -> None:
    assert counts(*CASES[case]) == EXPECTED[case]


def test_the_update_of_a_default_iteration_is_hardly_padded() -> None:
    (step,) = plan_steps(ROWS_OF_THE_DEFAULT, episodes_per_step=None, max_tokens=CPU_TOKENS)
    padded = sum(len(rows) * max(ROWS_OF_THE_DEFAULT[row] for row in rows) for rows in step.micro_batches)
    assert padded <= 1.06 * sum(ROWS_OF_THE_DEFAULT)
