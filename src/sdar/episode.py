"""Tasks, observations, turns and episodes: what a rollout is made of, in plain Python.

The turn (one sampled response) is the unit of credit; the episode is the unit of group statistics. Rows of a
batch are packaging and are made later, by the packers in :mod:`sdar.learning.batch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """Why an episode ended. Errors are typed: they never become a reward."""

    SUCCESS = "success"
    """The environment reported that the task is solved."""
    FAILURE = "failure"
    """The environment ended the episode without success."""
    TURN_LIMIT = "turn_limit"
    """The turn limit was reached."""
    CONTEXT_FULL = "context_full"
    """The next prompt and a full-length response would not have fitted, not even without any history (window)."""
    ERROR_ENVIRONMENT = "error_environment"
    """The environment raised an error. The episode carries no mask and enters no statistics."""
    ERROR_TOOL = "error_tool"
    """A server the environment depends on failed. The episode carries no mask and enters no statistics."""

    @property
    def is_error(self) -> bool:
        """Whether the episode must be kept out of learning and of group statistics."""
        return self in (EndReason.ERROR_ENVIRONMENT, EndReason.ERROR_TOOL)


@dataclass(frozen=True)
class Task:
    """One problem an environment can pose.

    ``task_id`` is stable across machines and runs; ``content_hash`` covers everything that makes the task what it
    is, so that panels can be compared. ``payload`` belongs to the environment alone.
    """

    task_id: str
    task_type: str
    description: str
    split: str
    content_hash: str
    payload: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Observation:
    """What an agent sees before it acts.

    ``actions`` lists the admissible actions, or is None where the environment has none to list. ``anchor``
    identifies the state without its history (used by methods that group turns by state). ``refused`` says that it
    answers an action that could not be carried out, so that the state is still the one before.
    """

    text: str
    actions: tuple[str, ...] | None
    anchor: str
    refused: bool = False


@dataclass(frozen=True)
class StepOutcome:
    """The answer of an environment to one action.

    ``observation`` is the next observation; after ``done`` it is the last thing the environment said. ``scores``
    holds named scores in [0, 1] (exact match, task score, ...). ``end`` is set exactly when ``done``.
    """

    observation: Observation
    reward: float
    done: bool
    success: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    end: EndReason | None = None
    error: str | None = None


@dataclass
class Turn:
    """One sampled response with the tokens that were fed before it.

    ``context_ids``   ids fed since the previous response (append) or the whole prompt (window); never trained on.
    ``response_ids``  exactly the ids that were sampled, end token included when it was sampled.
    ``splice_index``  where in ``context_ids`` the privileged block belongs for the teacher, None: not in this turn.
    ``truncated``     the response reached its token limit before an end token.
    ``valid``         the response could be projected to an action (see the environment's ``project``).
    ``dropped_turns`` past turns that the prompt should have shown and had no room for (window).
    """

    context_ids: list[int]
    response_ids: list[int]
    response_text: str
    action: str
    valid: bool
    observation: Observation
    splice_index: int | None = None
    truncated: bool = False
    reward: float = 0.0
    dropped_turns: int = 0


@dataclass
class Episode:
    """All turns of one attempt at one task by one group member.

    ``opening`` is the first user message; ``last_observation`` what the environment answered to the last action.
    ``in_loss`` is False for an episode that dynamic sampling leaves out: none of its tokens are learned from.
    """

    task: Task
    member: int
    turns: list[Turn]
    end: EndReason
    success: bool
    opening: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    last_observation: Observation | None = None
    in_loss: bool = True

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of the environment's rewards (no penalties)."""
        return sum(turn.reward for turn in self.turns)

    @property
    def num_response_tokens(self) -> int:
        """Number of sampled tokens over all turns."""
        return sum(len(turn.response_ids) for turn in self.turns)


@dataclass(frozen=True)
class TaskOutcome:
    """What became of one task of an iteration, over all ranks. Episodes that an error ended are left out of everything.

    ``episodes``        how many were played to an end
    ``mean_return``     mean of their undiscounted returns, in units of reward; 0 without any
    ``success_rate``    share of them that solved the task; 0 without any
    ``gap_on_success``  mean gap (teacher minus old log-prob, nats) of the response tokens of the solved ones; None: no
                        token, or no teacher was scored
    """

    task: Task
    episodes: int
    mean_return: float
    success_rate: float
    gap_on_success: float | None
