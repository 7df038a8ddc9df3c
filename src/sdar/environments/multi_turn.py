"""Environments of several turns in one class, which says what happens in one episode.

A game is an environment of three methods::

    class Countdown(MultiTurnEnvironment):
        name = "countdown"

        def examples(self, split):
            return [Example(f"Count down from {n}, a number in <action> each turn.", str(n)) for n in NUMBERS[split]]

        def begin(self, example):
            return [int(example.answer)]

        def play(self, state, action):
            state.append(state[-1] - 1)
            right = action == str(state[-1])
            return Reply("Go on.", done=not right or state[-1] == 0, solved=right and state[-1] == 0)

Episodes are played side by side without knowing of each other. Where a call for many of them is cheaper than many
calls, such as a search, an :class:`sdar.environments.base.EnvironmentPool` of your own gets all actions at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdar.environments.base import EnvironmentPool, Projection
from sdar.environments.examples import Example, ExampleEnvironment, share
from sdar.environments.slots import SlotPool, first_action
from sdar.environments.tools import tool_results
from sdar.episode import EndReason, Observation, StepOutcome, Task

__all__ = ["Example", "MultiTurnEnvironment", "Reply"]


@dataclass(frozen=True)
class Reply:
    """What an episode answers to an action.

    ``text``     what the agent reads next; "": the results
    ``reward``   of this action, in [0, 1]; None: 1 for the one that solves the task, else 0
    ``done``     whether the episode is over; it is where the task is solved
    ``solved``   whether the task is
    ``actions``  the admissible actions; None: not listed
    ``refused``  whether the action could not be carried out, so that the state is still the one before
    ``results``  what the tools returned that the action calls, in the order of the calls
    """

    text: str = ""
    reward: float | None = None
    done: bool = False
    solved: bool = False
    actions: tuple[str, ...] | None = None
    refused: bool = False
    results: tuple[str, ...] = ()


class MultiTurnEnvironment(ExampleEnvironment):
    """Several turns per episode. Subclasses have ``examples``, ``begin`` and ``play``.

    The return of an episode is the sum of its rewards times ``solved_return``.
    """

    max_turns = 10
    solved_return = 10.0  # as in the built-in environments: penalties and floors of advantages are in this unit

    @abstractmethod
    def begin(self, example: Example) -> Any:
        """The state of a new episode: any object, which ``play`` may change."""

    @abstractmethod
    def play(self, state: Any, action: str) -> Reply:
        """Take one action. What it raises ends this episode alone, as an error."""

    def action(self, response: str) -> str | None:
        """The action of a response, by default the text between the first action tags; None: it breaks the format.

        Pure. A response without an action is played as the empty one, and costs
        ``algorithm.advantage.invalid_penalty``.
        """
        return first_action(response)

    def project(self, response: str) -> Projection:
        """See :meth:`action`."""
        action = self.action(response)
        return Projection(action or "", action is not None)

    def open_pool(self) -> EnvironmentPool:
        """A pool of episodes that know nothing of each other."""
        return MultiTurnPool(self)


class MultiTurnPool(SlotPool[Any]):
    """Plays the episodes of a :class:`MultiTurnEnvironment`."""

    def __init__(self, environment: MultiTurnEnvironment) -> None:
        super().__init__()
        self.environment = environment

    def start(self, task: Task) -> tuple[Any, Observation]:
        """Begin."""
        return self.environment.begin(task.payload), Observation(task.payload.prompt, None, task.task_id)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Play."""
        return {slot: self._played(self.states[slot], action) for slot, action in actions.items()}

    def _played(self, state: Any, action: str) -> StepOutcome:
        reply = self.environment.play(state, action)
        if not isinstance(reply, Reply):
            raise TypeError(f"{type(self.environment).__name__}.play must return a Reply, got {reply!r}")
        reward = share(reply.solved if reply.reward is None else reply.reward, self.environment, "play")
        done = reply.done or reply.solved
        end = (EndReason.SUCCESS if reply.solved else EndReason.FAILURE) if done else None
        text = reply.text or tool_results(*reply.results).text
        return StepOutcome(
            observation=Observation(text, None if done else reply.actions, text, reply.refused, reply.results),
            reward=reward * self.environment.solved_return,
            done=done,
            success=reply.solved,
            end=end,
        )
