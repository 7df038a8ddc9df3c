"""Demonstrated turns, for the warm start of the tiny models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One demonstrated turn: the observation before it, the thought, the command, and whether to imitate it.

    ``observation`` is the text of the environment's observation, from which the prompts are made.
    """

    observation: str
    thought: str
    command: str
    imitate: bool
