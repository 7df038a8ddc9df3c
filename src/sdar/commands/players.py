"""Who plays in the terminal: a person, the environment's solution, or a trained model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sdar.environments.base import Environment
from sdar.episode import NO_PREFACE, Observation, Preface, Task
from sdar.errors import RunFailed, UserError
from sdar.evaluation.chat_messages import Told
from sdar.evaluation.chat_wire import Reply
from sdar.rollout.answers import AnswerError, checked_plan
from sdar.rollout.conversation import AppendConversation, WindowConversation
from sdar.rollout.sampling import turn_generator, turn_uniforms
from sdar.rollout.settings import SamplingConfig
from sdar.run.folder import run_config
from sdar.run.parts import build_part

if TYPE_CHECKING:
    from sdar.evaluation.endpoint_panel import ChatPlayer
    from sdar.policy.language_model import LanguageModel

Read = Callable[[str], str]
"""Asks for a line like ``input``. Raises EOFError at the end of the input."""

Write = Callable[[str], object]
"""Shows a text like ``print``."""

PROMPT = "> "


@dataclass(frozen=True)
class Move:
    """An action, and the response it was read from, if any."""

    action: str
    response: str | None = None
    valid: bool = True


class Player(ABC):
    """Plays one episode."""

    def begin(self, preface: Preface) -> None:  # noqa: B027 - it is shown to a person, and a solution needs none
        """Take note of what stands before the first message."""

    def fits(self, text: str, observation: Observation) -> bool:  # noqa: ARG002
        """Whether the player has room for this as the next message. Changes nothing."""
        return True

    @abstractmethod
    def move(self, text: str, observation: Observation) -> Move | None:
        """The answer to the next message. None if nothing is left to do."""


class Person(Player):
    """Types commands or whole responses. ``?`` lists the possible commands."""

    def __init__(self, environment: Environment, read: Read, write: Write) -> None:
        self._environment, self._read, self._write = environment, read, write

    def move(self, text: str, observation: Observation) -> Move:  # noqa: ARG002
        """Ask until a command is typed."""
        while True:
            line = self._read(PROMPT).strip()
            if line == "?":
                self._write("\n".join(observation.actions or ()) or "this environment lists no commands")
            elif line:
                return Move(self._environment.project(line).action if "<action>" in line else line)


class Solution(Player):
    """Plays the environment's own solution. UserError if none is known."""

    def __init__(self, environment: Environment, task: Task) -> None:
        try:
            actions = checked_plan(environment.expert(task))
        except AnswerError as error:
            raise UserError(f"--expert: {error}") from error
        if actions is None:
            raise UserError(f"--expert: no solution of task {task.task_id} is known")
        self._remaining = iter(actions)

    def move(self, text: str, observation: Observation) -> Move | None:  # noqa: ARG002
        """The next action of the solution."""
        action = next(self._remaining, None)
        return None if action is None else Move(action)


@dataclass
class PolicyPlayer(Player):
    """A model plays as in a rollout. Equal seeds sample equal tokens.

    ``window``      every message is a prompt of its own, without a growing conversation
    ``privileged``  a text added to the model's prompt
    """

    policy: LanguageModel
    environment: Environment
    task: Task
    sampling: SamplingConfig
    window: bool
    privileged: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.window:
            self.policy.chat.check_append()
        conversation = WindowConversation if self.window else AppendConversation
        self._conversation = conversation(self.policy.chat, self.privileged)
        self._generator = turn_generator(self.policy, self.sampling)
        self._generator.start(1)
        self._turn = 0

    def begin(self, preface: Preface) -> None:
        """Let the prompts have it."""
        self._conversation.chat = self.policy.chat.prefaced(preface)

    def fits(self, text: str, observation: Observation) -> bool:
        """Whether the context has room for the message and a response of full length."""
        needed = self._conversation.length + len(self._conversation.prompt(text, observation.results).ids)
        return needed + self.sampling.max_response_tokens <= self.policy.context_tokens

    def move(self, text: str, observation: Observation) -> Move:
        """Sample a response and project it."""
        if self.window:
            self._generator.start(1)
        prompt = self._conversation.prompt(text, observation.results)
        length = self.sampling.max_response_tokens
        uniforms = turn_uniforms(self.seed, ("play",), self.task.task_id, 0, self._turn, length)
        (ids,) = self._generator.respond({0: prompt.ids}, {0: uniforms}).values()
        self._turn += 1
        response, _ = self._conversation.record(prompt, ids)
        projection = self.environment.project(self._conversation.said(prompt, response))
        return Move(projection.action, response, projection.valid)


@dataclass
class EndpointPlayer(Player):
    """A model behind a chat endpoint plays as in ``sdar evaluate``. RunFailed: it does not answer."""

    player: ChatPlayer
    environment: Environment
    task: Task
    said: list[tuple[Told, str]] = field(default_factory=list)
    preface: Preface = NO_PREFACE

    def begin(self, preface: Preface) -> None:
        """Let the conversation have it."""
        self.preface = preface

    def move(self, text: str, observation: Observation) -> Move:
        """Ask for a response and project it."""
        window, told = self.player.rollout.context == "window", Told(text, observation.results)
        messages = self.player.messages(self.task, self.preface, [] if window else self.said, told)
        reply = self.player.ask(self.task, messages, len(self.said), self.preface.tools)
        if not isinstance(reply, Reply):
            reason = "the conversation is longer than the model's context" if reply is None else reply
            raise RunFailed(f"the endpoint gives no response ({reason})")
        self.said.append((told, reply.text))
        projection = self.environment.project(reply.text)
        return Move(projection.action, reply.text, projection.valid)


def load_policy(policy: str) -> LanguageModel:
    """A model from a run's checkpoint, from a folder written by ``save_pretrained``, or a shipped one by its name.

    UserError: there is none, or it cannot be loaded.
    """
    from sdar.policy.language_model import tiny_model

    settings = run_config(policy)
    if settings is None:
        if Path(policy).is_file():
            raise UserError(
                f"--policy must be a checkpoint inside its run folder, a model's folder or its name, got {policy}"
            )
        return tiny_model(policy)
    loaded: LanguageModel = build_part(settings, "model")
    load_weights(loaded, policy)
    return loaded


def load_weights(policy: LanguageModel, checkpoint: str | Path) -> None:
    """Load a run's checkpoint into its model. UserError if they do not belong together."""
    from torch import nn

    from sdar.policy.checkpoint import load_student

    # In a run, the names of the parameters begin with "model.".
    load_student(nn.ModuleDict({"model": policy.model}), policy, checkpoint)
