"""Demonstrations for ALFWorld's tiny model, in the very token ids a rollout would produce.

Three kinds: the right skills with a skilled demonstrator, no skills with a mediocre one, and wrong skills with the
mediocre one, so that a skill which does not fit the task is not trusted. Games come from a split of their own, in the
training scenes; no training or validation game is among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sdar.environments.alfworld.demonstrator import MEDIOCRE, SKILLED, Demonstrator, Step
from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.environments.alfworld.game import TASK_TYPES, Game
from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine
from sdar.environments.alfworld.task_text import TEMPLATES, parse_task_text
from sdar.episode import Observation, Task
from sdar.policy.chat import ChatFormat
from sdar.randomness import keyed_generator
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval
from sdar.teacher.context import SkillTeacher

SPLIT = "warm_start"

PHRASES = (
    r"</think><action>",
    r"</?think>",
    r"</?action>",
    r", and a(?= )",
    r", a(?= )",
    r"\. On the(?= )",
    r"\. The(?= )",
    r", you see a(?= )",
    r", you see nothing\.",
    r", you see",
    r" is closed\.",
    r" is open\. In it",
    r"You arrive at",
    r"You open the",
    r"You pick up the",
    r"You move the",
    r"You are in the middle of a room\. Looking quickly around you",
    r"\.\n\nYour task is to:",
    r"Nothing happens\.",
    r" from the(?= )",
    r" to the(?= )",
    r" using the(?= )",
    r": try(?= )",
    r": open it",
    r": take it",
    r": use it",
    r": put it there",
    r": (?:clean|heat|cool) it(?: in)?",
    r"go to(?= )",
)
"""Set phrases of the environment and of the response format, each a single token where it is frequent."""


@dataclass
class Mixture:
    """Shares of the three kinds of demonstrations; they add up to 1."""

    right: float = 0.42
    none: float = 0.42
    wrong: float = 0.16


@dataclass(frozen=True)
class Demonstration:
    """Token ids of an episode and, per id, the weight of its loss.

    Imitated responses weigh 1; what the environment said weighs ``environment_weight``, which teaches copying names
    long before the responses would; prompts, skills and slips weigh 0.
    """

    ids: list[int]
    weights: list[float]


class AlfworldDemonstrations:
    """An endless, seekable stream of fresh demonstrations: number ``index`` depends on the seed and the index only."""

    def __init__(
        self,
        chat: ChatFormat | None,
        *,
        seed: int,
        max_turns: int,
        mixture: Mixture | None = None,
        environment_weight: float = 0.2,
    ) -> None:
        """``chat`` may be None as long as only ``texts`` is used (before there is a tokenizer)."""
        self._chat = chat
        self._seed = seed
        self._mixture = mixture or Mixture()
        self._environment_weight = environment_weight
        self._generator = HouseholdGenerator(GeneratorSettings())
        self._engine = NativeEngine()
        self._environment = AlfworldEnvironment(max_turns=max_turns)
        self._teacher = skill_teacher()

    def __getitem__(self, index: int) -> Demonstration:
        rng = keyed_generator(self._seed, SPLIT, "kind", index)
        game, steps, kind = self._play(index, rng.random())
        privileged = self._privileged(game, index, kind)
        return self._encode(game, steps, privileged)

    def texts(self, count: int) -> Iterator[str]:
        """Raw texts of the first demonstrations, for the vocabulary."""
        for index in range(count):
            game, steps, kind = self._play(index, index / count)
            yield self._privileged(game, index, kind)
            for step in steps:
                yield step.observation
                yield response_text(step)

    def _play(self, index: int, draw: float) -> tuple[Game, list[Step], str]:
        kind = "right" if draw < self._mixture.right else "none"
        if draw >= self._mixture.right + self._mixture.none:
            kind = "wrong"
        game = self._generator.game(SPLIT, self._seed * 10_000_000 + index)
        goal = parse_task_text(game.task_text)
        assert goal is not None
        state, reply = self._engine.load(game).start()
        habits = SKILLED if kind == "right" else MEDIOCRE
        rng = keyed_generator(self._seed, SPLIT, "play", index)
        steps, _ = Demonstrator(state, reply, goal, habits, rng).play(self._environment.max_turns)
        return game, steps, kind

    def _privileged(self, game: Game, index: int, kind: str) -> str:
        if kind == "none":
            return ""
        if kind == "right":
            return self._teacher.privileged_text(as_task(game))
        rng = keyed_generator(self._seed, SPLIT, "wrong skill", index)
        return self._teacher.privileged_text(wrong_task(as_task(game), int(rng.integers(1, len(TASK_TYPES)))))

    def _encode(self, game: Game, steps: list[Step], privileged: str) -> Demonstration:
        chat = self._chat
        assert chat is not None, "a demonstration needs a chat format"
        ids: list[int] = []
        weights: list[float] = []
        for number, step in enumerate(steps):
            observation = Observation(step.observation, None, "")
            if number == 0:
                context, splice = chat.opening(self._environment.opening(as_task(game), observation))
                block = chat.privileged(privileged)
                context = context[:splice] + block + context[splice:]
                context_weight = 0.0
            else:
                context = chat.between(self._environment.reply(observation))
                context_weight = self._environment_weight
            response = [*chat.privileged(response_text(step)), chat.end_id]
            ids += context + response
            weights += [context_weight] * len(context) + [float(step.imitate)] * len(response)
        return Demonstration(ids, weights)


def skill_teacher() -> SkillTeacher:
    """The teacher context the default run uses: the shipped library, by keywords."""
    return SkillTeacher(SkillLibrary.load("alfworld"), KeywordRetrieval())


def as_task(game: Game) -> Task:
    """A game as the task the environment would make of it."""
    return Task(game.game_id, game.task_type, game.task_text, game.split, game.content_hash, game)


def wrong_task(task: Task, shift: int) -> Task:
    """A task of another type, whose skills are wrong for this one; ``shift`` in 1..5 picks the type."""
    other = TASK_TYPES[(TASK_TYPES.index(task.task_type) + shift) % len(TASK_TYPES)]
    description = TEMPLATES[other][0].format(obj="thing", target="somewhere")
    return replace(task, task_type=other, description=description)


def response_text(step: Step) -> str:
    """A step in the response format."""
    return f"<think>{step.thought}</think><action>{step.command}</action>"
