"""Gymnasium's text environments: observations that are text, actions that are text or have names."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sdar.config.fields import AtLeastOne, Positive, TaskCount, checked
from sdar.environments.adapters.foreign import (
    FIRST_SEED,
    TAGGED,
    ActionFormat,
    ForeignEnvironment,
    ForeignPool,
    imported,
    required,
    trusted,
)
from sdar.environments.base import EnvironmentPool, PastTurn, PromptStyle
from sdar.environments.tools import joined
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError

_SHOWN = 60


class GymnasiumEnvironment(ForeignEnvironment):
    """An environment of Gymnasium; a task is a seed for its ``reset``.

    An episode is solved where the last step's ``info`` says so or, where it says nothing, where the environment
    terminates with a reward of at least ``success_threshold``. An episode that it truncates ended by its turn limit.

    Args:
        id: as ``gymnasium.make`` takes it; ``module:Name-v0`` imports the module, which must be allowed.
        kwargs: arguments of the environment's constructor.
        observation: ``text``: observations are text, or mappings that have it under ``text_key``; ``render``: what
            ``render`` returns in the mode ``ansi`` is shown instead.
        actions: names of the actions of a ``Discrete`` space, in its order; None: their numbers are their names.
        action_format: where an action stands in a response (:data:`ActionFormat`).
        instructions: what the agent is told before the first observation; None: the id.
        success_key: entry of ``info`` that says whether the task is solved.
        success_threshold: least reward of a last step that solves.
        reward_scale: factor of all rewards.
        max_turns: turn limit of an episode; the environment may have a lower one of its own.
        num_tasks: seeds per split, in the order train, valid. They mean nothing to an environment that draws nothing.
        prompt_style: ``full`` explains the format of an action.
        list_actions: whether the rules list the names of the actions (full style).
    """

    name: ClassVar[str] = "gymnasium"

    @checked
    def __init__(
        self,
        id: str,
        *,
        kwargs: Mapping[str, Any] | None = None,
        observation: Literal["text", "render"] = "text",
        text_key: str = "text",
        actions: Sequence[str] | None = None,
        action_format: ActionFormat = "tagged",
        instructions: str | None = None,
        success_key: str = "success",
        success_threshold: float = 1.0,
        reward_scale: Positive = 1.0,
        max_turns: AtLeastOne = 20,
        num_tasks: Sequence[TaskCount] = (1000, 100),
        prompt_style: PromptStyle = "full",
        list_actions: bool = True,
    ) -> None:
        self.id, self.kwargs = id, dict(kwargs or {})
        self.observation, self.text_key = observation, text_key
        self.names = None if actions is None else tuple(actions)
        if twice := [name for name, count in Counter(self.names or ()).items() if count > 1]:
            raise UserError(f"environment.actions must be different names, got {twice[0]!r} more than once")
        self.action_format = action_format
        self.success_key, self.success_threshold = success_key, success_threshold
        self.reward_scale = self.solved_return = reward_scale
        self.max_turns = max_turns
        self._instructions = instructions or f"Play {id}."
        self._counts = self.per_split(num_tasks)
        self._full, self.lists = prompt_style == "full", list_actions

    def tasks(self, split: str) -> Sequence[Task]:
        """One per seed."""
        first = FIRST_SEED[self.known(split)]
        what = json.dumps([self.id, self.kwargs], sort_keys=True)
        return [self._task(split, seed, what) for seed in range(first, first + self._counts[split])]

    def _task(self, split: str, seed: int, what: str) -> Task:
        content = hashlib.sha256(f"{what}\0{seed}".encode()).hexdigest()
        return Task(f"{split}/{seed}", self.id, self._instructions, split, content, seed)

    def rules(self, task: Task) -> str:
        """The format, and the names of the actions."""
        if not self._full:
            return ""
        listed = f"Actions: {', '.join(self.names)}." if self.lists and self.names else ""
        return joined(TAGGED if self.action_format == "tagged" else "", listed)

    def opening(self, task: Task, observation: Observation) -> str:
        """Rules, task, first observation; the numbers of actions that have no names, where actions are listed."""
        return joined(super().opening(task, observation), self._numbers(observation))

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """See :class:`ForeignEnvironment`; the numbers end every prompt."""
        prompt = super().window_prompt(task, past, observation, step)
        return prompt if step == 0 else joined(prompt, self._numbers(observation))  # the first one is the opening

    def _numbers(self, observation: Observation) -> str:
        if not (self._full and self.lists and observation.actions) or self.names:
            return ""
        return f"Actions: {', '.join(observation.actions)}."

    def open_pool(self) -> EnvironmentPool:
        """A pool that makes an environment per episode."""
        return GymnasiumPool(self)


@dataclass
class _Game:
    env: Any
    seen: Observation


class GymnasiumPool(ForeignPool[_Game]):
    """Episodes of a Gymnasium environment."""

    def __init__(self, of: GymnasiumEnvironment) -> None:
        super().__init__()
        self.of = of
        self.gymnasium = required("gymnasium", "gymnasium")
        module, _, self.id = of.id.rpartition(":")
        setting = f"environment.id={of.id}"
        if module:  # it registers the environment
            trusted(f"{module}.", setting)
            imported(module, setting)
        try:
            entry = self.gymnasium.spec(self.id).entry_point
        except self.gymnasium.error.Error as error:
            raise UserError(f"{setting} cannot be made: {error}") from error
        if isinstance(entry, str) and not entry.startswith("gymnasium."):
            trusted(entry.replace(":", "."), setting)

    def open(self, task: Task) -> _Game:
        """Make an environment. UserError for one with other actions than texts or numbers."""
        mode = {"render_mode": "ansi"} if self.of.observation == "render" else {}
        env = self.gymnasium.make(self.id, disable_env_checker=True, **self.of.kwargs, **mode)
        spaces, space = self.gymnasium.spaces, env.action_space
        if not isinstance(space, spaces.Text | spaces.Discrete):
            raise UserError(f"environment.id={self.of.id}: its actions must be Text or Discrete, got {space}")
        if self.of.names is not None and (isinstance(space, spaces.Text) or len(self.of.names) != space.n):
            raise UserError(f"environment.actions must be a name for each action of {space}, got {list(self.of.names)}")
        return _Game(env, Observation("", None, ""))

    def first(self, state: _Game, task: Task) -> Observation:
        """Reset with the task's seed."""
        shown, _ = state.env.reset(seed=task.payload)
        state.seen = self._seen(state.env, shown)
        return state.seen

    def play(self, state: _Game, action: str) -> StepOutcome:
        """A step; an action that is none is refused, and the environment does not hear of it."""
        taken = self._action(state.env.action_space, action)
        if taken is None:
            names = ", ".join(state.seen.actions or ())
            told = f"{action[:_SHOWN]!r} is not an action." + (f" Actions: {names}." if self.of.lists and names else "")
            return StepOutcome(
                Observation(told, state.seen.actions, state.seen.anchor, refused=True), 0.0, False, False
            )
        shown, reward, terminated, truncated, info = state.env.step(taken)
        state.seen = self._seen(state.env, shown)
        solved = bool(info.get(self.of.success_key, terminated and reward >= self.of.success_threshold))
        done = bool(terminated or truncated)
        end = EndReason.SUCCESS if solved else EndReason.FAILURE if terminated else EndReason.TURN_LIMIT
        scaled = float(reward) * self.of.reward_scale
        return StepOutcome(state.seen, scaled, done, done and solved, end=end if done else None)

    def release(self, state: _Game) -> None:
        """Close the environment."""
        state.env.close()

    def _action(self, space: Any, text: str) -> Any:
        """What ``step`` takes; None: the text is no action."""
        if isinstance(space, self.gymnasium.spaces.Text):
            return text if space.contains(text) else None
        names = [name.casefold() for name in self._names(space)]
        wanted = text.strip().casefold()
        return space.start + names.index(wanted) if wanted in names else None

    def _names(self, space: Any) -> tuple[str, ...]:
        return self.of.names or tuple(str(space.start + number) for number in range(space.n))

    def _seen(self, env: Any, shown: Any) -> Observation:
        space = env.action_space
        actions = None if isinstance(space, self.gymnasium.spaces.Text) else self._names(space)
        if self.of.observation == "render":
            shown = env.render()
        elif isinstance(shown, Mapping):
            shown = shown.get(self.of.text_key)
        if not isinstance(shown, str):
            raise TypeError(
                f"an observation must be text, or a mapping with it under {self.of.text_key!r}, got "
                f"{type(shown).__name__}; environment.observation=render shows what the environment prints (ansi)"
            )
        return Observation(shown, actions, shown)
