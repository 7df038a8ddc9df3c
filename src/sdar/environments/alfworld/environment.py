"""ALFWorld: household tasks in text, on generated households or on the published games."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from sdar.config.fields import AtLeastOne, TaskCount, checked
from sdar.environments.alfworld.dataset import GameSource, available_splits, list_games
from sdar.environments.alfworld.engine import Engine, EngineGame, EngineState, GameError, Reply
from sdar.environments.alfworld.generator import SPLITS, GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NOTHING_HAPPENS, NativeEngine
from sdar.environments.base import Environment, EnvironmentPool, PastTurn, Projection, PromptStyle
from sdar.environments.slots import SlotPool, failed, tagged_action
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError

SUCCESS_REWARD = 10.0
"""Reward of the winning step; every other step gives 0 (verl-agent's ALFWorld, as used in the paper)."""

BANNER = "-= Welcome to TextWorld, ALFRED! =-\n\n"

ROLE = "You are in a house and act by typing commands. "
FORMAT = (
    "think first, briefly, between <think> and </think>, then give exactly one command between <action> and </action>. "
)
COMMANDS = (
    "Commands: go to X, open X, close X, take O from X, move O to X, clean O with X, heat O with X, cool O with X, "
    'use O, examine X, look, inventory. Names carry their number, as in "cabinet 2".'
)
INSTRUCTIONS = f"{ROLE}In every turn {FORMAT}{COMMANDS}\n\n"
"""First part of a growing conversation in the full style."""

EngineName = Literal["native", "textworld"]


class AlfworldEnvironment(Environment):
    """Tasks of ALFWorld and their prompts.

    Args:
        engine: ``native`` or ``textworld`` (ALFWorld's own PDDL engine; needs ``sdar[textworld]``).
        data_dir: folder of the published games as laid out by ``alfworld-download``; None: generated households.
        max_turns: turn limit of an episode (the paper uses 50 on the published games).
        prompt_style: ``full`` explains commands and format to a pretrained model; ``terse`` is for a model that was
            warm-started on the format.
        list_actions: whether each prompt lists the admissible commands.
        num_tasks: generated tasks per split, in the order train, valid_seen, valid_unseen.
        generator: how households are generated; ignored with ``data_dir``.
    """

    name: ClassVar[str] = "alfworld"
    default_split: ClassVar[str | None] = "valid_unseen"
    solved_return = SUCCESS_REWARD

    @checked
    def __init__(
        self,
        *,
        engine: EngineName = "native",
        data_dir: str | Path | None = None,
        max_turns: AtLeastOne = 14,
        prompt_style: PromptStyle = "terse",
        list_actions: bool = False,
        num_tasks: Sequence[TaskCount] = (960, 240, 240),
        generator: GeneratorSettings | None = None,
    ) -> None:
        if len(num_tasks) != len(SPLITS):
            raise UserError(
                f"environment.num_tasks must be a list of {len(SPLITS)} numbers ({', '.join(SPLITS)}), "
                f"got {list(num_tasks)}"
            )
        self.max_turns = max_turns
        self._prompt_style = prompt_style
        self._list_actions = list_actions
        self._engine = _engine(engine)
        self._num_tasks = dict(zip(SPLITS, num_tasks, strict=True))
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._generator: HouseholdGenerator | None = None
        self._splits: tuple[str, ...] = SPLITS
        if self._data_dir is None:
            self._generator = HouseholdGenerator(generator or GeneratorSettings())
        else:
            self._splits = available_splits(self._data_dir)
        self._tasks: dict[str, list[Task]] = {}

    def splits(self) -> tuple[str, ...]:
        """The splits that have tasks."""
        return self._splits

    def training_split(self) -> str:
        """``train``. UserError for a dataset without it."""
        if SPLITS[0] not in self._splits:
            raise UserError(
                f"environment.data_dir must contain json_2.1.1/train to train, but {self._data_dir} has only "
                f"{', '.join(self._splits)}; set train=false to evaluate only"
            )
        return SPLITS[0]

    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split. They are generated, or listed from the dataset, on first use."""
        if split not in self.splits():
            raise UserError(f"split must be one of {', '.join(self.splits())}, got {split!r}")
        if split not in self._tasks:
            self._tasks[split] = [
                Task(game.game_id, game.task_type, game.task_text, game.split, game.content_hash, payload=game)
                for game in self._games_of(split)
            ]
        return self._tasks[split]

    def _games_of(self, split: str) -> Sequence[GameSource]:
        if self._generator is not None:
            return [self._generator.game(split, index) for index in range(self._num_tasks[split])]
        assert self._data_dir is not None
        return list_games(self._data_dir, split).entries

    def open_pool(self) -> EnvironmentPool:
        """A pool on this environment's engine."""
        return AlfworldPool(self._engine)

    def self_contained(self) -> bool:
        """Yes: a task's content is its game."""
        return True

    def opening(self, task: Task, observation: Observation) -> str:
        """Instructions (full style), the room, and the task as the engine states it."""
        head = INSTRUCTIONS if self._prompt_style == "full" else ""
        return head + observation.text.removeprefix(BANNER) + self._actions_text(observation)

    def reply(self, observation: Observation) -> str:
        """The engine's answer."""
        return observation.text + self._actions_text(observation)

    def _actions_text(self, observation: Observation) -> str:
        if not self._list_actions or observation.actions is None:
            return ""
        return "\nCommands you can give now: " + ", ".join(observation.actions) + "."

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """Role, task, number of steps, past turns, current observation, commands, and the required format.

        This follows the order of the original prompt, in our own words (sdar code, env_manager.py). The terse style
        omits the role and the format. The first observation states the task itself.
        """
        full = self._prompt_style == "full"
        parts = [ROLE.rstrip()] if full else []
        if step > 0:
            parts.append(f"Your task is to: {task.description}")
        if past:
            turns = [f"{turn.observation.removeprefix(BANNER)}\n> {turn.action}" for turn in past]
            parts += [f"Steps taken so far: {step}. The last {len(past)}, with what you saw before each:", *turns]
        parts.append(("Now you see:\n" if past else "") + self.reply(observation).removeprefix(BANNER))
        if full:
            parts.append(f"Now {FORMAT}".rstrip() if self._list_actions else f"Now {FORMAT}{COMMANDS}")
        return "\n\n".join(parts)

    def project(self, response: str) -> Projection:
        """See :func:`sdar.environments.slots.tagged_action`; without action tags, the last 30 characters."""
        return tagged_action(response, 30)

    def expert(self, task: Task) -> list[str] | None:
        """The game's stored solution."""
        game: GameSource = task.payload
        return list(game.walkthrough) or None


def _engine(name: str) -> Engine:
    if name == "native":
        return NativeEngine()
    # A lazy import: it needs the extra ``sdar[textworld]``.
    from sdar.environments.alfworld.textworld_engine import TextWorldEngine

    return TextWorldEngine()


class AlfworldPool(SlotPool[EngineState]):
    """Episodes on one engine, in this process. The episodes of a group share one loaded game."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._load = lru_cache(maxsize=64)(self._load_game)

    def _load_game(self, source: GameSource) -> EngineGame:
        return self._engine.load(source.load())

    def start(self, task: Task) -> tuple[EngineState, Observation] | StepOutcome:
        """See :class:`SlotPool`."""
        try:
            state, reply = self._load(task.payload).start()
        except GameError as error:
            return failed(str(error))
        return state, _observation(reply)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """See :class:`SlotPool`."""
        return {slot: _outcome(self.states[slot], command) for slot, command in actions.items()}

    def close(self) -> None:
        """Forget all episodes and loaded games."""
        super().close()
        self._load.cache_clear()


def _outcome(state: EngineState, command: str) -> StepOutcome:
    try:
        reply = state.step(command)
    except GameError as error:
        return failed(str(error))
    return StepOutcome(
        observation=_observation(reply),
        reward=SUCCESS_REWARD if reply.won else 0.0,
        done=reply.won,
        success=reply.won,
        end=EndReason.SUCCESS if reply.won else None,
    )


def _observation(reply: Reply) -> Observation:
    # "help" only prints a manual; verl-agent does not offer it to the agent either.
    actions = tuple(command for command in reply.admissible if command != "help")
    return Observation(text=reply.text, actions=actions, anchor=reply.text, refused=reply.text == NOTHING_HAPPENS)
