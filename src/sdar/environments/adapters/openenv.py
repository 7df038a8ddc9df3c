"""Environments behind a server of OpenEnv: one WebSocket session per episode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sdar.config.fields import AtLeastOne, Positive, TaskCount, checked
from sdar.environments.adapters.foreign import (
    FIRST_SEED,
    TAGGED,
    ActionFormat,
    ForeignEnvironment,
    ForeignPool,
    required,
)
from sdar.environments.adapters.loop import Loop
from sdar.environments.base import EnvironmentPool, PromptStyle
from sdar.environments.tools import joined, loaded
from sdar.episode import EndReason, Observation, StepOutcome, Task

_ANSWERS = ("done", "reward", "metadata")
"""Fields of every observation, which are no text for the agent."""
_REFUSED = "(code: VALIDATION_ERROR)"
"""What the server says of an action that its class does not take."""
_WRONG_ANSWER = (TypeError, ValueError, LookupError, AttributeError)
"""What reading an answer raises where it is not what the protocol says."""


class OpenEnvEnvironment(ForeignEnvironment):
    """An environment of a server; a task is a seed for its ``reset``.

    An episode is solved where it is done with a reward of at least ``success_threshold``. A server that is away, too
    slow or full ends the episodes that need it as ``error_tool``, an error inside the environment, or an answer that
    is none, as ``error_environment``. The server has to allow as many sessions as ``rollout.max_concurrent_episodes``.

    Args:
        url: address of the server, ``http://HOST:PORT`` or ``ws://HOST:PORT``.
        action_field: field of the server's action that gets the text; None: the text is the action as a JSON object.
        action_format: where an action stands in a response (:data:`ActionFormat`).
        observation_field: field of an observation that is shown; None: all of it, as JSON.
        instructions: what the agent is told first; None: the address.
        success_threshold: least reward of a last step that solves.
        reward_scale: factor of all rewards.
        max_turns: turn limit of an episode.
        connect_timeout_s: longest time for a connection, in seconds.
        timeout_s: longest time for an answer, in seconds.
        num_tasks: seeds per split, in the order train, valid. They mean nothing to an environment that ignores them.
        prompt_style: ``full`` explains the format of an action.
        list_actions: no effect; model files set it for every environment.
    """

    name: ClassVar[str] = "openenv"

    @checked
    def __init__(
        self,
        url: str,
        *,
        action_field: str | None = "message",
        action_format: ActionFormat = "tagged",
        observation_field: str | None = None,
        instructions: str | None = None,
        success_threshold: float = 1.0,
        reward_scale: Positive = 1.0,
        max_turns: AtLeastOne = 20,
        connect_timeout_s: Positive = 10.0,
        timeout_s: Positive = 60.0,
        num_tasks: Sequence[TaskCount] = (1000, 100),
        prompt_style: PromptStyle = "full",
        list_actions: bool = True,
    ) -> None:
        self.url, self.timeouts = url, {"connect_timeout_s": connect_timeout_s, "message_timeout_s": timeout_s}
        self.action_field, self.observation_field = action_field, observation_field
        self.action_format = action_format
        self.success_threshold, self.max_turns = success_threshold, max_turns
        self.reward_scale = self.solved_return = reward_scale
        self._instructions = instructions or f"Use the environment at {url}."
        self._counts, self._full = self.per_split(num_tasks), prompt_style == "full"

    def tasks(self, split: str) -> Sequence[Task]:
        """One per seed. What an address serves is not part of their content."""
        first = FIRST_SEED[self.known(split)]
        return [self._task(split, seed) for seed in range(first, first + self._counts[split])]

    def _task(self, split: str, seed: int) -> Task:
        content = hashlib.sha256(f"{self._instructions}\0{seed}".encode()).hexdigest()
        return Task(f"{split}/{seed}", self.name, self._instructions, split, content, seed)

    def rules(self, task: Task) -> str:
        """The format of an action."""
        if not self._full:
            return ""
        kind = "" if self.action_field is not None else "An action is a JSON object."
        return joined(TAGGED if self.action_format == "tagged" else "", kind)

    def open_pool(self) -> EnvironmentPool:
        """A pool with a session per episode."""
        return OpenEnvPool(self)


@dataclass
class _Session:
    client: Any
    anchor: str = ""
    answer: Any = None


class OpenEnvPool(ForeignPool[_Session]):
    """Sessions side by side, kept alive by a thread."""

    batched: ClassVar[bool] = True

    def __init__(self, of: OpenEnvEnvironment) -> None:
        super().__init__()
        self.of = of
        self._client = required("openenv.core", of.name).GenericEnvClient
        self._loop = Loop()
        self._unanswered: BaseException | None = None

    def open(self, task: Task) -> _Session:
        """A client that is not connected yet."""
        try:
            return _Session(self._client(base_url=self.of.url, **self.of.timeouts))
        except Exception as error:
            self._unanswered = error
            raise

    def begin(self, opened: Sequence[tuple[_Session, Task]]) -> None:
        """Connect all, and reset each with its task's seed."""
        self._loop.run(*(self._connect(state, task) for state, task in opened))

    def first(self, state: _Session, task: Task) -> Observation:
        """What the reset answered."""
        state.anchor = self._text(self._answer(state).observation)
        return Observation(state.anchor, None, state.anchor)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Send all actions, and wait for all answers."""
        self._loop.run(*(self._ask(self.states[slot], action) for slot, action in actions.items()))
        return super().act(actions)

    def play(self, state: _Session, action: str) -> StepOutcome:
        """The answer to the action."""
        result = self._answer(state)
        if isinstance(result, str):
            return StepOutcome(Observation(result, None, state.anchor, refused=True), 0.0, False, False)
        state.anchor = self._text(result.observation)
        reward, done = float(result.reward or 0.0), bool(result.done)
        solved = done and reward >= self.of.success_threshold
        end = EndReason.SUCCESS if solved else EndReason.FAILURE
        seen = Observation(state.anchor, None, state.anchor)
        return StepOutcome(seen, reward * self.of.reward_scale, done, solved, end=end if done else None)

    def end_of(self, error: BaseException) -> EndReason:
        """The client's errors are of the connection, but for RuntimeError, its word for one inside the environment.

        Where the client had an answer, an error in reading it is the environment's, too.
        """
        if isinstance(error, RuntimeError):
            inside = "CAPACITY_REACHED" not in str(error)
        else:
            inside = isinstance(error, _WRONG_ANSWER) and error is not self._unanswered
        return EndReason.ERROR_ENVIRONMENT if inside else EndReason.ERROR_TOOL

    def _answer(self, state: _Session) -> Any:
        """What the client returned; what it raised is raised here."""
        if isinstance(state.answer, BaseException):
            self._unanswered = state.answer
            raise state.answer
        return state.answer

    def release(self, state: _Session) -> None:
        """End the session."""
        self._loop.run(state.client.close())

    def close(self) -> None:
        """Release all episodes, and the thread."""
        super().close()
        self._loop.close()

    async def _connect(self, state: _Session, task: Task) -> None:
        """``answer``: the result, or the error, which ``first`` tells."""
        try:
            state.answer = await self._in_time(state.client.reset(seed=task.payload))
        except Exception as error:
            state.answer = error

    async def _ask(self, state: _Session, action: str) -> None:
        """``answer``: the result, the text of a refusal, or the error, which ``play`` tells."""
        payload = self._payload(action)
        if payload is None:
            state.answer = "An action must be a JSON object."
            return
        try:
            state.answer = await self._in_time(state.client.step(payload))
        except Exception as error:
            refused = isinstance(error, RuntimeError) and _REFUSED in str(error)
            state.answer = str(error) if refused else error

    async def _in_time(self, answer: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await answer
        except TimeoutError as error:
            seconds = self.of.timeouts["message_timeout_s"]
            raise TimeoutError(f"{self.of.url} did not answer within {seconds:g} s") from error

    def _payload(self, action: str) -> dict[str, Any] | None:
        """The server's action; None: the text is none."""
        if self.of.action_field is not None:
            return {self.of.action_field: action}
        found = loaded(action)
        return found if isinstance(found, dict) else None

    def _text(self, observation: Mapping[str, Any]) -> str:
        if self.of.observation_field is None:
            shown = {name: value for name, value in observation.items() if name not in _ANSWERS}
            return json.dumps(shown, ensure_ascii=False)
        text = observation.get(self.of.observation_field)
        if not isinstance(text, str):
            raise TypeError(f"observation {self.of.observation_field!r} must be text, got {type(text).__name__}")
        return text
