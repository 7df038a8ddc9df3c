"""Tasks, observations, turns and episodes: what a rollout is made of, in plain Python.

The turn (one sampled response) is the unit of credit; the episode is the unit of group statistics. Rows of a
batch are packaging and are made later, by the packers in :mod:`sdar.learning.batch`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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
    is, so that panels can be compared. ``payload`` belongs to the environment alone. ``problem`` is equal for tasks
    that must not be both in training and on a panel although their contents differ, such as a question with other
    golden answers; "": the contents alone decide.
    """

    task_id: str
    task_type: str
    description: str
    split: str
    content_hash: str
    payload: Any = field(default=None, compare=False, repr=False)
    problem: str = field(default="", repr=False)


def is_unicode(text: Any) -> bool:
    """Whether this is a text that tokenizers and files accept: one without lone surrogates."""
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Tool:
    """A function that a response can call.

    ``name`` has 1 to 64 letters, digits and ``_.-``. ``description`` is for the model. ``parameters`` is the JSON
    schema of an object: the arguments by name; it is kept as ``schema``, its JSON text. ValueError for other values.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    schema: str = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _TOOL_NAME.fullmatch(self.name):
            raise ValueError(f"the name of a tool must be 1 to 64 letters, digits and _.-, got {self.name!r}")
        if not is_unicode(self.description):
            raise ValueError(f"the description of tool {self.name} must be Unicode text, got {self.description!r:.80}")
        try:
            given: dict[str, Any] = {**self.parameters}
            given.setdefault("type", "object")
            given.setdefault("properties", {})
            schema = json.dumps(given, ensure_ascii=False, allow_nan=False)
            whole = given["type"] == "object" and isinstance(given["properties"], Mapping) and is_unicode(schema)
        except (TypeError, ValueError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(f"the parameters of tool {self.name} must be the JSON schema of an object")
        object.__setattr__(self, "schema", schema)
        object.__setattr__(self, "parameters", json.loads(schema))

    def form(self) -> dict[str, Any]:
        """The tool as chat templates and chat endpoints take it."""
        function = {"name": self.name, "description": self.description, "parameters": json.loads(self.schema)}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Preface:
    """What a model reads before the first user message: a system message and tools. Without both it is false.

    A ``system`` text has no whitespace around it; of nothing but whitespace it is None. ValueError for tools with equal
    names and for values of other types.
    """

    system: str | None = None
    tools: tuple[Tool, ...] = ()

    def __post_init__(self) -> None:
        if self.system is not None and not is_unicode(self.system):
            raise ValueError(f"a system message must be Unicode text or None, got {self.system!r:.80}")
        if not isinstance(self.tools, tuple) or not all(isinstance(tool, Tool) for tool in self.tools):
            raise ValueError(f"the tools of a preface must be a tuple of Tool, got {self.tools!r:.80}")
        if len({tool.name for tool in self.tools}) != len(self.tools):
            raise ValueError(f"tools must have different names, got {', '.join(tool.name for tool in self.tools)}")
        object.__setattr__(self, "system", (self.system or "").strip() or None)

    def __bool__(self) -> bool:
        return self.system is not None or self.tools != ()


NO_PREFACE = Preface()


@dataclass(frozen=True)
class Observation:
    """What an agent sees before it acts.

    ``actions`` lists the admissible actions, or is None where the environment has none to list. ``anchor``
    identifies the state without its history (used by methods that group turns by state). ``refused`` says that it
    answers an action that could not be carried out, so that the state is still the one before. ``results`` are what the
    tools returned that the last response called, in the order of the calls; ``text`` then says the same.
    """

    text: str
    actions: tuple[str, ...] | None
    anchor: str
    refused: bool = False
    results: tuple[str, ...] = ()


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
    ``sampler_log_probs``  of the sampled ids, nats, by a sampler that is not the policy itself; None: it is
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
    sampler_log_probs: list[float] | None = None


@dataclass
class Episode:
    """All turns of one attempt at one task by one group member.

    ``opening`` is the first user message, and ``preface`` what stands before it; ``last_observation`` what the
    environment answered to the last action. ``in_loss`` is False for an episode that dynamic sampling leaves out: none
    of its tokens are learned from.
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
    preface: Preface = NO_PREFACE

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
