"""Pools that keep one state per running slot, and the projection of tagged actions."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from sdar.environments.base import EnvironmentPool, Projection
from sdar.environments.tags import Tags
from sdar.episode import EndReason, Observation, StepOutcome, Task

State = TypeVar("State")

_CJK = re.compile(r"[\u4e00-\u9fff]")
_ACTION = Tags("action")


class SlotPool(EnvironmentPool, Generic[State]):
    """A pool of episodes whose states are in this process."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {}

    @abstractmethod
    def start(self, task: Task) -> tuple[State, Observation] | StepOutcome:
        """The state of a new episode and its first observation, or the error of a task that cannot start."""

    @abstractmethod
    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Apply one action in each given slot; all of them are running."""

    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Start the tasks. One that cannot be played ends its slot with an error."""
        self.states = {}
        shown: list[Observation | StepOutcome] = []
        for slot, task in enumerate(tasks):
            started = self.start(task)
            if isinstance(started, StepOutcome):
                shown.append(started)
            else:
                self.states[slot], observation = started
                shown.append(observation)
        return shown

    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Apply one action in each given slot."""
        for slot in actions:
            if slot not in self.states:
                raise ValueError(f"slot {slot} is not running")
        outcomes = self.act(actions)
        for slot, outcome in outcomes.items():
            if outcome.done:
                del self.states[slot]
        return outcomes

    def close(self) -> None:
        """Forget all episodes."""
        self.states = {}


def failed(message: str, end: EndReason = EndReason.ERROR_ENVIRONMENT) -> StepOutcome:
    """The outcome of a slot that an error ends."""
    return StepOutcome(Observation("", None, ""), 0.0, True, False, end=end, error=message)


def first_action(response: str) -> str | None:
    """The text between the first action tags, as it stands there but for the spaces around it; None without such."""
    found = _ACTION.first(response)
    return None if found is None else found.strip()


def tagged_action(response: str, fallback_characters: int) -> Projection:
    """The text between the first action tags, lower-cased; valid if thought and action are both tagged.

    The rule is verl-agent's (sdar code, env_package/{alfworld,webshop}/projection.py). Action tags are matched in the
    lower-cased response, thought tags in the original one, and Chinese characters anywhere make the turn invalid.
    Whether the action is admissible is not checked. Without both action tags, the last characters are the action.
    Spaces around a tagged action are stripped, and a closing tag before the opening one gives the empty action.
    """
    lowered = response.lower()
    start, stop = lowered.find("<action>"), lowered.find("</action>")
    if start < 0 or stop < 0:
        return Projection(lowered[-fallback_characters:], False)
    thought = "<think>" in response and "</think>" in response
    action = lowered[start + len("<action>") : stop].strip()
    return Projection(action, thought and _CJK.search(response) is None)
