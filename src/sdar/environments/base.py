"""The environment protocol. This module imports neither torch nor a policy.

An environment provides tasks, the text of its prompts, and the projection of a response to an action. Its pool plays
many episodes at once, so that expensive calls (retrieval, worker processes) can be batched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from sdar.episode import NO_PREFACE, Observation, Preface, StepOutcome, Task
from sdar.errors import UserError

PromptStyle = Literal["terse", "full"]
"""``full`` explains the task's format to a pretrained model; ``terse`` is for a model that was warm-started on it."""


@dataclass(frozen=True)
class PastTurn:
    """An observation and the action that followed it: one line of a window prompt's history.

    ``action`` is the projected action, even if the response broke the format; the reasoning is not kept.
    """

    observation: str
    action: str


@dataclass(frozen=True)
class Projection:
    """A response projected to an action. ``valid`` is False if the response broke the format."""

    action: str
    valid: bool


class EnvironmentPool(ABC):
    """Many parallel episodes, addressed by slot number (0-based position in ``reset``'s list)."""

    batched: ClassVar[bool] = False
    """Whether one ``step`` with many slots is cheaper than many steps with one slot (batched retrieval, workers).

    False: slots are stepped one at a time, so an exception ends only the slot that raised it. True: slots are stepped
    together; the pool itself must turn the error of a slot into a done outcome, since an exception ends every slot.
    """

    @abstractmethod
    def reset(self, tasks: Sequence[Task]) -> list[Observation | StepOutcome]:
        """Start one episode per task. A slot that cannot start returns a done ``StepOutcome`` with its error."""

    @abstractmethod
    def step(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Apply one action in each given slot. Stepping a slot that has ended raises ValueError."""

    def close(self) -> None:  # noqa: B027 - most pools have nothing to release
        """Release workers and files. Idempotent."""


class Environment(ABC):
    """A source of tasks, the text around them, and pools that play them."""

    name: ClassVar[str]
    default_split: ClassVar[str | None] = None
    """Split of the panel if ``evaluation.split`` is null; None: the only one beside the training split."""
    solved_return: float = 1.0
    """Return of an episode that solves its task, in units of reward. Bandits scale returns by it."""
    max_turns: int

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the task splits; the first is the training split, where there is one."""

    def training_split(self) -> str:
        """Name of the training split. An environment on data without one raises UserError."""
        return self.splits()[0]

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split, in a stable order that does not depend on the file system."""

    @abstractmethod
    def open_pool(self) -> EnvironmentPool:
        """A new, independent pool."""

    def check_ready(self) -> None:  # noqa: B027 - most environments need nothing from outside
        """Raise UserError where something is missing that playing needs, such as a server that answers.

        It is called once, before a run does any work, and answers within a bounded time.
        """

    def preface(self, task: Task) -> Preface:
        """System message and tools of an episode; none by default. It is asked once, when the episode has started.

        The chat template of the model writes them as it writes its own. Where it cannot, they are text: tools in the
        system message, or both in front of the first user message.
        """
        return NO_PREFACE

    def self_contained(self) -> bool:
        """Whether its settings, the contents of its tasks and the installed packages alone decide what it answers.

        A panel that was played may then stand for playing it again: no server and no file that no task covers takes
        part. It is asked of environments of this package alone; the version of others is not known.
        """
        return False

    def opening(self, task: Task, observation: Observation) -> str:
        """Text of the first user message of an episode; by default the observation's."""
        return observation.text

    def reply(self, observation: Observation) -> str:
        """Text of the user message that answers an action in a growing conversation; by default the observation's.

        In place of it the model reads the ``results`` of an observation, where its template has messages of tools.
        """
        return observation.text

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """Text of the only user message of a turn if each turn gets a fresh prompt (``rollout.context=window``).

        ``past`` holds the last turns, oldest first. It has fewer than ``rollout.history_turns`` turns early in an
        episode or if they do not fit, and none in a prompt without history. ``step`` is the number of actions so far.

        The default joins the texts of a growing conversation. Override it if later turns need more, such as a format
        that only ``opening`` explains.
        """
        if step == 0:
            return self.opening(task, observation)
        parts = [task.description]
        if past:
            parts.append(f"Steps taken: {step}. The last {len(past)}:")
            # What the task says already is not said again.
            shown = ("" if turn.observation == task.description else f"{turn.observation}\n" for turn in past)
            parts += [f"{seen}> {turn.action}" for seen, turn in zip(shown, past, strict=True)]
        return "\n\n".join([*parts, self.reply(observation)])

    @abstractmethod
    def project(self, response: str) -> Projection:
        """Project a response (without its end token) to an action. Pure.

        In an episode with tools, calls have one form, whatever the model's: :mod:`sdar.environments.tools` reads it.
        """

    def expert(self, task: Task) -> list[str] | None:
        """Actions that solve the task, or None if the environment has no expert."""
        return None

    def baselines(self) -> Mapping[str, Callable[[Task], list[str]]]:
        """Players without a model for the final table, by name; each returns the actions for a task."""
        return {}


def training_tasks(environment: Environment, *, needed: bool = True) -> Sequence[Task]:
    """The tasks of the training split. Data without one have none, or raise UserError where they are ``needed``."""
    try:
        split = environment.training_split()
    except UserError:
        if needed:
            raise
        return ()
    return environment.tasks(split)
