"""Environments of verifiers with its classes ``Environment``, ``SingleTurnEnv``, ``MultiTurnEnv``, ``ToolEnv``, ...

verifiers plays each episode itself (``run_rollout``) and asks a model for every response. Here, the policy is asked:
a rollout is a task of an event loop (:mod:`sdar.environments.adapters.verifiers_rollout`).

The classes are in the versions before 0.4, which has others (``verifiers.v1``).
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

from sdar.config.fields import AtLeastOne, Positive, TaskCount, checked
from sdar.environments.adapters.foreign import ForeignEnvironment, ForeignPool, required, trusted
from sdar.environments.adapters.loop import Loop
from sdar.environments.adapters.messages import Messages, results_in, system_of, text_of
from sdar.environments.adapters.verifiers_rollout import Rollout
from sdar.environments.base import EnvironmentPool, Projection, PromptStyle
from sdar.environments.tools import calls_in, tool_results
from sdar.episode import EndReason, Observation, Preface, StepOutcome, Task, Tool
from sdar.errors import UserError, is_interrupt, told

_SERVERS = ("InfraError", "TunnelError", "SandboxError", "BrowserSandboxError")
"""verifiers' errors of what an environment depends on."""


class VerifiersEnvironment(ForeignEnvironment):
    """An environment of verifiers; a task is a row of its data set.

    System message and tools are the policy's own; examples stand in front of the user's message, in one text. The
    rubric's reward is given with the last turn. ``train`` is the data set, ``valid`` the one for evaluation or,
    where there is none, the last tenth of the data set. A row that is in both is left out of ``train``.

    Args:
        id: as ``verifiers.load_environment`` takes it; the module it names must be allowed.
        kwargs: arguments of the module's ``load_environment``.
        num_tasks: most rows per split, in the order train, valid.
        max_turns: turn limit of an episode. An environment's own, where it is lower, holds.
        success_threshold: least reward of a solved episode.
        reward_scale: factor of the reward.
        prompt_style: ``terse`` leaves the description of the tools out.
        list_actions: no effect; model files set it for every environment.
    """

    name: ClassVar[str] = "verifiers"

    @checked
    def __init__(
        self,
        id: str,
        *,
        kwargs: Mapping[str, Any] | None = None,
        num_tasks: Sequence[TaskCount] = (1000, 100),
        max_turns: AtLeastOne = 10,
        success_threshold: float = 1.0,
        reward_scale: Positive = 1.0,
        prompt_style: PromptStyle = "full",
        list_actions: bool = True,
    ) -> None:
        self.id, self.kwargs = id, dict(kwargs or {})
        self.max_turns, self.success_threshold = max_turns, success_threshold
        self.reward_scale = self.solved_return = reward_scale
        self._most = self.per_split(num_tasks)
        self._full = prompt_style == "full"
        self.prefaces: dict[str, Preface] = {}  # by task id; tools are known from the first request on

    def __getstate__(self) -> dict[str, Any]:
        """Without what was loaded: another process loads its own."""
        return {name: value for name, value in vars(self).items() if name not in ("loaded", "_tasks")}

    @cached_property
    def loaded(self) -> Any:
        """The environment. UserError where it cannot be had."""
        setting = f"environment.id={self.id}"
        package = required("verifiers", self.name)
        if not hasattr(package, "load_environment"):
            raise UserError(
                f"environment=verifiers needs verifiers before 0.4, got {getattr(package, '__version__', 'another')}; "
                "install it with: pip install 'sdar[verifiers]'"
            )
        trusted(f"{self.id.rpartition('/')[2].replace('-', '_')}.", setting)
        try:
            with _own_signals():
                loaded = package.load_environment(self.id, **self.kwargs)
        except UserError:
            raise
        except BaseException as error:  # somebody else's module
            if is_interrupt(error):
                raise
            raise UserError(f"{setting} cannot be loaded: {told(error)}") from error
        if getattr(loaded, "requires_group_rollouts", False):
            raise UserError(f"{setting}: its rubric compares rollouts of a group, which are rewarded one by one here")
        for one in (loaded, *getattr(loaded, "envs", ())):  # so that the rubric also sees episodes that are cut
            if hasattr(one, "max_turns") and not 0 < one.max_turns <= self.max_turns:
                one.max_turns = self.max_turns
        return loaded

    @cached_property
    def _tasks(self) -> dict[str, list[Task]]:
        train, valid = self.loaded.build_dataset(), self.loaded.build_eval_dataset()
        rows = range(0 if train is None else len(train))
        places = {"valid": rows[len(rows) - max(1, len(rows) // 10) :] if valid is None else range(len(valid))}
        places["train"] = rows[: len(rows) - len(places["valid"])] if valid is None else rows
        known: dict[str, Task] = {}
        for split, data in (("valid", train if valid is None else valid), ("train", train)):
            for place in places[split][: self._most[split]]:
                task = self._task(split, place, dict(data[place]))
                known.setdefault(task.content_hash, task)
        if not known:
            raise UserError(f"environment.id={self.id} has no data set")
        return {split: [task for task in known.values() if task.split == split] for split in self.SPLITS}

    def _task(self, split: str, place: int, row: dict[str, Any]) -> Task:
        what = json.dumps([self.id, self.kwargs, {**row, "example_id": 0}], sort_keys=True, default=str)
        text = text_of(_prompt(row)[1])
        kind = str(row.get("task") or self.id)
        return Task(f"{split}/{place}", kind, text, split, hashlib.sha256(what.encode()).hexdigest(), row)

    def splits(self) -> tuple[str, ...]:
        """Those that have rows."""
        return tuple(split for split in self.SPLITS if self._tasks[split])

    def training_split(self) -> str:
        """``train``. UserError for an environment with rows for evaluation alone."""
        if not self._tasks["train"]:
            raise UserError(f"environment.id={self.id} has no data set to train on; set train=false to evaluate only")
        return "train"

    def tasks(self, split: str) -> Sequence[Task]:
        """The rows, loaded on first use."""
        return self._tasks[self.known(split)]

    def open_pool(self) -> EnvironmentPool:
        """A pool with an event loop of its own, which a thread runs."""
        return VerifiersPool(self)

    def preface(self, task: Task) -> Preface:
        """System message and tools of a task that was started."""
        known = self.prefaces.get(task.task_id) or Preface(_prompt(task.payload)[0])
        return known if self._full else Preface(known.system)

    def opening(self, task: Task, observation: Observation) -> str:
        """The prompt; where the environment wrote another one than the row has, that one."""
        return observation.text or task.description

    def project(self, response: str) -> Projection:
        """The whole response; valid where its calls of tools can be read."""
        return Projection(response, calls_in(response)[1])


def _prompt(row: Mapping[str, Any]) -> tuple[str, Messages]:
    """System message and other messages of a row."""
    prompt = row["prompt"]
    return system_of([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Loading an environment would take over SIGINT and SIGTERM, which stop a run, and fail in a thread."""
    original = signal.signal
    signal.signal = lambda *_: None
    try:
        yield
    finally:
        signal.signal = original


class _RolloutError(Exception):
    """The error that verifiers recorded of a rollout."""


class VerifiersPool(ForeignPool[Rollout]):
    """Rollouts side by side in one event loop: what they wait for, they wait for together."""

    batched: ClassVar[bool] = True

    def __init__(self, of: VerifiersEnvironment) -> None:
        super().__init__()
        self.of, self.env = of, of.loaded
        self._package, self._types = required("verifiers", of.name), required("verifiers.types", of.name)
        self._loop = Loop()

    def open(self, task: Task) -> Rollout:
        """A rollout and its model."""
        return Rollout(self._package, self._types)

    def begin(self, opened: Sequence[tuple[Rollout, Task]]) -> None:
        """Run each as far as its first request."""
        rollouts = (self.env.run_rollout(task.payload, state.client, "policy", {}) for state, task in opened)
        self._loop.run(*(state.begin(rollout) for (state, _), rollout in zip(opened, rollouts, strict=True)))

    def first(self, state: Rollout, task: Task) -> Observation:
        """Its first request. The observation is "" where that is the prompt of the row."""
        if state.said is None:
            self._result(state)
            raise _RolloutError("the rollout ended before it asked for a response")
        said, tools = state.said
        system, messages = system_of(said)
        self.of.prefaces[task.task_id] = Preface(system, tuple(map(_tool, tools)))
        text = text_of(messages)
        return Observation("" if text == task.description else text, None, text)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Bring all responses, and wait until each rollout asks again or is over."""
        self._loop.run(*(self.states[slot].hear(response) for slot, response in actions.items()))
        return super().act(actions)

    def play(self, state: Rollout, action: str) -> StepOutcome:
        """What the rollout said: its next request, or its result."""
        if state.said is not None:
            messages, _ = state.said
            results, text = results_in(messages), text_of(messages)
            seen = tool_results(*results) if results else Observation(text, None, text)
            return StepOutcome(seen, 0.0, False, False)
        result = self._result(state)
        reward = float(result.get("reward") or 0.0)
        solved = reward >= self.of.success_threshold
        cut = result.get("stop_condition") == "max_turns_reached" and state.turns > 1
        return StepOutcome(
            Observation("", None, ""),
            reward * self.of.reward_scale,
            done=True,
            success=solved,
            scores={"reward": min(max(reward, 0.0), 1.0)},
            end=EndReason.SUCCESS if solved else EndReason.TURN_LIMIT if cut else EndReason.FAILURE,
        )

    def _result(self, state: Rollout) -> Mapping[str, Any]:
        """What verifiers recorded. Raises what the rollout raised, or recorded as its error."""
        result: Mapping[str, Any] = state.running.result()
        error = result.get("error")
        if error:
            # Before 0.3 there is a chain of errors instead of a message.
            words = error.get("message") or error.get("error_chain_repr") or ""
            raise _RolloutError(f"{error['error']}: {words}")
        if result.get("stop_condition") == "timeout_reached":
            raise _RolloutError("the environment's own time limit (timeout_seconds) was reached")
        return result

    def end_of(self, error: BaseException) -> EndReason:
        """An error of a server or sandbox, or any other."""
        foreign = isinstance(error, _RolloutError) and str(error).startswith(_SERVERS)
        return EndReason.ERROR_TOOL if foreign else EndReason.ERROR_ENVIRONMENT

    def release(self, state: Rollout) -> None:
        """Cancel it where it is not over."""
        self._loop.run(state.leave())

    def close(self) -> None:
        """Release all episodes, and the loop."""
        super().close()
        self._loop.close()


def _tool(tool: Any) -> Tool:
    return Tool(tool["name"], tool["description"] or "", tool["parameters"] or {})
