"""Environments in the form that TRL's ``GRPOTrainer`` takes as ``environment_factory`` (TRL 1.16).

A class with ``reset(**row)``, public methods that are tools, and ``get_reward()``. TRL itself is not needed for it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sdar.config.fields import AtLeastOne, Positive, TaskCount, checked
from sdar.environments.adapters.foreign import FIRST_SEED, ForeignEnvironment, ForeignPool, named, required
from sdar.environments.adapters.loop import Loop
from sdar.environments.adapters.messages import content_text, system_of, text_of
from sdar.environments.base import EnvironmentPool, Projection, PromptStyle
from sdar.environments.search_qa.questions import read_jsonl
from sdar.environments.tools import Call, calls_in, joined, tool_results, without_calls
from sdar.episode import EndReason, Observation, Preface, StepOutcome, Task, Tool
from sdar.errors import UserError, told, words_of
from sdar.files import FileError, expanded

_NO_TOOLS = ("reset", "get_reward")


class TrlEnvironment(ForeignEnvironment):
    """A class of tools; a task is a row, whose columns are the arguments of ``reset``.

    A response with calls of tools is answered by their results; one without is the last. The reward of the last turn is
    what ``get_reward`` and the reward function say, added up; of None from both the episode ends as an error. An error
    that a tool raises is its result, as in TRL.

    Args:
        factory: dotted name of the class, or of a function that makes its object; its package must be allowed. From
            Python also the class itself.
        data_dir: folder of rows, ``train.jsonl`` and ``valid.jsonl``; None: the rows are ``{"seed": n}``, which
            ``reset`` has to take, and the environment writes the prompt.
        prompt: the user's message of rows that have no ``prompt``. What ``reset`` returns is appended to it.
        reward: dotted name of a reward function in TRL's form: it gets ``prompts``, ``completions``, ``environments``
            and the columns as lists, and what only a trainer has it does not get. None: ``get_reward`` alone.
        max_turns: responses of an episode. The calls of the last one are not made.
        success_threshold: least reward of a solved episode.
        reward_scale: factor of the reward.
        num_tasks: seeds per split, in the order train, valid; no effect with ``data_dir``.
        prompt_style: ``terse`` leaves the description of the tools out.
        list_actions: no effect; model files set it for every environment.
    """

    name: ClassVar[str] = "trl"

    @checked
    def __init__(
        self,
        factory: str | Callable[..., Any],
        *,
        data_dir: str | Path | None = None,
        prompt: str = "",
        reward: str | Callable[..., Any] | None = None,
        max_turns: AtLeastOne = 10,
        success_threshold: float = 1.0,
        reward_scale: Positive = 1.0,
        num_tasks: Sequence[TaskCount] = (1000, 100),
        prompt_style: PromptStyle = "full",
        list_actions: bool = True,
    ) -> None:
        self.factory, self.reward, self.prompt = factory, reward, prompt
        self.max_turns, self.success_threshold = max_turns, success_threshold
        self.reward_scale = self.solved_return = reward_scale
        self._data = None if data_dir is None else expanded(data_dir)
        self._counts, self._full = self.per_split(num_tasks), prompt_style == "full"

    def make(self) -> Any:
        """A new object of the class. UserError where it has no ``reset``."""
        made = (named(self.factory, "environment.factory") if isinstance(self.factory, str) else self.factory)()
        if not callable(getattr(made, "reset", None)):
            raise UserError(f"environment.factory={self.label} must make an object with a method reset")
        return made

    def reward_functions(self, made: Any) -> list[Callable[..., Any]]:
        """Those of an object. UserError where there is none."""
        own = [lambda **_: [made.get_reward()]] if hasattr(made, "get_reward") else []
        given = [named(self.reward, "environment.reward") if isinstance(self.reward, str) else self.reward]
        functions = [*own, *(one for one in given if one is not None)]
        if not functions:
            raise UserError(f"environment.reward is needed: {self.label} has no get_reward")
        return functions

    @property
    def label(self) -> str:
        """Name of the factory."""
        if isinstance(self.factory, str):
            return self.factory
        return getattr(self.factory, "__qualname__", type(self.factory).__name__)

    @cached_property
    def _tasks(self) -> dict[str, list[Task]]:
        return {}

    def tasks(self, split: str) -> Sequence[Task]:
        """The rows of a split, read on first use."""
        if self.known(split) not in self._tasks:
            rows = self._rows(split)
            self._tasks[split] = [self._task(split, place, row) for place, row in enumerate(rows)]
        return self._tasks[split]

    def _rows(self, split: str) -> list[dict[str, Any]]:
        if self._data is None:
            return [{"seed": FIRST_SEED[split] + number} for number in range(self._counts[split])]
        try:
            rows = [dict(row) for row in read_jsonl(self._data / f"{split}.jsonl")]
        except FileError as error:
            raise UserError(f"environment.data_dir: {error}") from error
        if not rows:
            raise UserError(f"environment.data_dir: {self._data / split}.jsonl has no row")
        return rows

    def _task(self, split: str, place: int, row: dict[str, Any]) -> Task:
        row = {"prompt": self.prompt, **row}
        if isinstance(row["prompt"], str):
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        try:
            text = text_of(system_of(row["prompt"])[1])
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            where = self.label if self._data is None else f"{self._data / split}.jsonl: row {place + 1}"
            raise UserError(
                f"{where} must have a prompt that is a text, or messages of role and text ({told(error)})"
            ) from error
        content = hashlib.sha256(json.dumps([self.label, row], sort_keys=True).encode()).hexdigest()
        return Task(f"{split}/{place}", self.label, text or self.label, split, content, row)

    def open_pool(self) -> EnvironmentPool:
        """A pool with an object per episode."""
        return TrlPool(self)

    @cached_property
    def _tools(self) -> tuple[Tool, ...]:
        return tuple(tool_of(method) for method in tools_of(self.make()).values()) if self._full else ()

    def preface(self, task: Task) -> Preface:
        """The row's system message, and the tools: names, arguments, docstrings."""
        return Preface(system_of(task.payload["prompt"])[0], self._tools)

    def opening(self, task: Task, observation: Observation) -> str:
        """The prompt, to which what ``reset`` returned is appended."""
        return text_of(system_of(task.payload["prompt"])[1]) + observation.text

    def project(self, response: str) -> Projection:
        """The whole response; valid where its calls of tools can be read."""
        return Projection(response, calls_in(response)[1])


def tools_of(made: Any) -> dict[str, Callable[..., Any]]:
    """The tools of an object, as TRL finds them: public methods of its class, without ``reset`` and ``get_reward``."""
    names = [name for name, _ in inspect.getmembers(type(made), predicate=inspect.isfunction)]
    return {name: getattr(made, name) for name in names if name not in _NO_TOOLS and not name.startswith("_")}


@dataclass
class _Episode:
    made: Any
    row: dict[str, Any] = field(default_factory=dict)
    completion: list[dict[str, Any]] = field(default_factory=list)
    turns: int = 0


class TrlPool(ForeignPool[_Episode]):
    """Episodes with tools."""

    def __init__(self, of: TrlEnvironment) -> None:
        super().__init__()
        self.of = of
        self._loop: Loop | None = None

    def open(self, task: Task) -> _Episode:
        """A new object of the class."""
        episode = _Episode(self.of.make())
        self.of.reward_functions(episode.made)
        return episode

    def first(self, state: _Episode, task: Task) -> Observation:
        """Reset with the columns of the row."""
        text = content_text(self._awaited(state.made.reset(**json.loads(json.dumps(task.payload)))))
        *before, last = task.payload["prompt"]
        state.row = {**task.payload, "prompt": [*before, {**last, "content": content_text(last["content"]) + text}]}
        return Observation(text, None, joined(task.description, text))

    def play(self, state: _Episode, action: str) -> StepOutcome:
        """Make the calls of a response, or end the episode with its reward."""
        state.turns += 1
        calls, _ = calls_in(action)
        said: dict[str, Any] = {"role": "assistant", "content": without_calls(action)}
        if calls:
            functions = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
            said["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        state.completion.append(said)
        if calls and state.turns < self.of.max_turns:
            results = [{"role": "tool", "name": call.name, "content": self._result(state.made, call)} for call in calls]
            state.completion += results
            seen = tool_results(*(content_text(result["content"]) for result in results))
            return StepOutcome(seen, 0.0, False, False)
        reward = self._reward(state)
        solved = reward >= self.of.success_threshold
        end = EndReason.SUCCESS if solved else EndReason.TURN_LIMIT if calls else EndReason.FAILURE
        scores = {"reward": min(max(reward, 0.0), 1.0)}
        return StepOutcome(Observation("", None, ""), reward * self.of.reward_scale, True, solved, scores, end)

    def _reward(self, state: _Episode) -> float:
        columns = {name: [value] for name, value in state.row.items() if name != "prompt"}
        given = {"prompts": [state.row["prompt"]], "completions": [state.completion], "environments": [state.made]}
        rewards: list[Any] = []
        for function in self.of.reward_functions(state.made):
            rewards += [self._awaited(reward) for reward in self._awaited(function(**given, **columns))]
        numbers = [float(reward) for reward in rewards if reward is not None]
        if not numbers:
            raise ValueError("every reward function returned None")
        return sum(numbers)

    def close(self) -> None:
        """Release all episodes, and end the event loop. Idempotent."""
        super().close()
        if self._loop is not None:
            self._loop.close()
        self._loop = None

    def _result(self, made: Any, call: Call) -> Any:
        """What a tool returns, as TRL puts it into a message: a list of parts, or a text."""
        tools = tools_of(made)
        try:
            if call.name not in tools:
                raise ValueError(f"Tool {call.name} not found.")
            result = self._awaited(tools[call.name](**call.arguments))
        except Exception as error:  # the model reads it, and may do better
            result = {"error": words_of(error)}
        parts = isinstance(result, list) and all(isinstance(part, dict) and "type" in part for part in result)
        return result if parts else str(result)

    def _awaited(self, value: Any) -> Any:
        """The value, or what it comes to: in one event loop for all, so that a connection outlives a call."""
        if not inspect.isawaitable(value):
            return value
        if self._loop is None:
            self._loop = Loop()

        async def waited() -> Any:
            return await value

        return self._loop.run(waited())[0]


def tool_of(method: Callable[..., Any]) -> Tool:
    """A method as a tool, with the schema that transformers makes of annotations and docstring, as TRL does.

    Where that fails, for example for want of a docstring, the schema has the names of the arguments alone.
    """
    schemas = required("transformers.utils.chat_template_utils", "trl")
    try:
        found = schemas.get_json_schema(method)["function"]
        return Tool(found["name"], found["description"], found["parameters"])
    except Exception:  # of several kinds, and others out of annotations
        arguments = inspect.signature(method).parameters.values()
        needed = [one.name for one in arguments if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        schema = {"type": "object", "properties": {one.name: {} for one in arguments}, "required": needed}
        return Tool(method.__name__, inspect.getdoc(method) or "", schema)
