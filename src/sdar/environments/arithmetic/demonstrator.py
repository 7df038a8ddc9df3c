"""Players of generated problems, for the warm start: one who calculates, and one who is careless."""

from __future__ import annotations

import numpy as np

from sdar.environments.arithmetic.problem import Problem
from sdar.environments.demonstration import Step

GUESSES, FORGETS = 0.5, 0.35
"""Shares of the careless player's responses that guess without a calculation, and that forget the carry."""


def demonstrate(problem: Problem, rng: np.random.Generator, *, skilled: bool) -> Step:
    """The response of a player, to be imitated with its slips."""
    habit = 1.0 if skilled else rng.random()
    ones, tens = problem.calculation()
    if habit < GUESSES:
        near = problem.result + int(rng.integers(-12, 13))
        return _step(problem, "about", max(near, 0))
    if habit < GUESSES + FORGETS:
        return _step(problem, ones.partition(",")[0], problem.without_carry())
    return _step(problem, f"{ones}; {tens}", problem.result)


def _step(problem: Problem, thought: str, answer: int) -> Step:
    return Step(problem.text, thought, f"<answer>{answer}</answer>", imitate=True)
