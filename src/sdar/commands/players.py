"""Who plays in the terminal: a person, the environment's solution, or a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sdar.environments.base import Environment
from sdar.episode import Observation, Task
from sdar.errors import UserError
from sdar.rollout.conversation import AppendConversation, WindowConversation
from sdar.rollout.sampling import turn_generator, turn_uniforms
from sdar.rollout.settings import SamplingConfig
from sdar.run.folder import CONFIG_FILE, read_config

if TYPE_CHECKING:
    from sdar.policy.language_model import LanguageModel

Read = Callable[[str], str]
"""Asks for a line, as ``input`` does: raises EOFError at the end of the input."""

Write = Callable[[str], object]
"""Shows a text, as ``print`` does."""

PROMPT = "> "


@dataclass(frozen=True)
class Move:
    """What a player does: the action, and the response it was read from where there is one."""

    action: str
    response: str | None = None
    valid: bool = True


class Player(Protocol):
    """Someone who plays one episode."""

    def fits(self, text: str) -> bool:
        """Whether the player could read this as the next message. Changes nothing."""
        ...

    def move(self, text: str, observation: Observation) -> Move | None:
        """What to do about the next message; None: there is nothing left to do."""
        ...


class Person:
    """Types commands, or whole responses; ``?`` lists the commands that are possible."""

    def __init__(self, environment: Environment, read: Read, write: Write) -> None:
        self._environment, self._read, self._write = environment, read, write

    def fits(self, text: str) -> bool:  # noqa: ARG002
        """A person reads everything."""
        return True

    def move(self, text: str, observation: Observation) -> Move:  # noqa: ARG002
        """Ask until something is typed that is not a question."""
        while True:
            line = self._read(PROMPT).strip()
            if line == "?":
                commands = "\n".join(observation.actions) if observation.actions else ""
                self._write(commands or "this environment lists no commands")
            elif line:
                return Move(self._environment.project(line).action if "<action>" in line else line)


class Solution:
    """Plays the environment's own solution.

    Raises UserError where none is known.
    """

    def __init__(self, environment: Environment, task: Task) -> None:
        actions = environment.expert(task)
        if actions is None:
            raise UserError(f"--expert: no solution of task {task.task_id} is known")
        self._remaining: Iterator[str] = iter(actions)

    def fits(self, text: str) -> bool:  # noqa: ARG002
        """A solution reads nothing."""
        return True

    def move(self, text: str, observation: Observation) -> Move | None:  # noqa: ARG002
        """The next action of the solution."""
        action = next(self._remaining, None)
        return None if action is None else Move(action)


class PolicyPlayer:
    """A model plays, as it does in a rollout; equal seeds sample equal tokens."""

    def __init__(
        self,
        policy: LanguageModel,
        environment: Environment,
        task: Task,
        sampling: SamplingConfig,
        *,
        window: bool,
        privileged: str | None = None,
        seed: int = 0,
    ) -> None:
        """``window``: every message is a prompt of its own; ``privileged``: a text that the model reads beside it."""
        if not window:
            policy.chat.check_append()
        self._policy, self._environment, self._task = policy, environment, task
        self._sampling, self._seed, self._window = sampling, seed, window
        self._conversation = (WindowConversation if window else AppendConversation)(policy.chat, privileged)
        self._generator = turn_generator(policy, sampling)
        self._generator.start(1)
        self._turn = 0

    def fits(self, text: str) -> bool:
        """Whether the context has room for the message and a response of full length."""
        needed = self._conversation.length + len(self._conversation.prompt(text).ids)
        return needed + self._sampling.max_response_tokens <= self._policy.context_tokens

    def move(self, text: str, observation: Observation) -> Move:  # noqa: ARG002
        """Sample a response and project it."""
        if self._window:
            self._generator.start(1)
        prompt = self._conversation.prompt(text)
        uniforms = turn_uniforms(
            self._seed, ("play",), self._task.task_id, 0, self._turn, self._sampling.max_response_tokens
        )
        (ids,) = self._generator.respond({0: prompt.ids}, {0: uniforms}).values()
        self._turn += 1
        response, _ = self._conversation.record(prompt, ids)
        projection = self._environment.project(response)
        return Move(projection.action, response, projection.valid)


def run_config(policy: str) -> dict[str, Any] | None:
    """The settings of the run that a checkpoint lies in; None: it is no checkpoint of a run folder."""
    folder = Path(policy).resolve().parent.parent
    return read_config(folder) if Path(policy).is_file() and (folder / CONFIG_FILE).is_file() else None


def load_policy(policy: str) -> LanguageModel:
    """A model by the checkpoint of a run, by a folder as ``save_pretrained`` writes it, or by a shipped one's name.

    Raises:
        UserError: there is none, or it cannot be loaded.
    """
    from torch import nn

    from sdar.config.build import build
    from sdar.policy.checkpoint import load_student
    from sdar.policy.language_model import tiny_model

    settings = run_config(policy)
    if settings is None:
        if Path(policy).is_file():
            raise UserError(
                f"--policy must be a checkpoint inside its run folder, a model's folder or its name, got {policy}"
            )
        return tiny_model(policy)
    loaded: LanguageModel = build(settings["model"], "model")
    holder = nn.Module()
    holder.model = loaded.model  # the name that the parameters have in a run
    load_student(holder, loaded, policy)
    return loaded
