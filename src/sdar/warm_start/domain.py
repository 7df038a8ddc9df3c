"""What a warm start has to know of an environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from sdar.environments.base import Environment
from sdar.environments.demonstration import Step
from sdar.episode import Task
from sdar.policy.tiny import CONTEXT_TOKENS
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval
from sdar.teacher.context import SkillTeacher
from sdar.warm_start.train import WarmStartSettings

SPLIT = "warm_start"
"""Demonstrations are played on tasks of this split, which no training or evaluation ever sees."""


class Domain(ABC):
    """Demonstrators and vocabulary of one environment.

    ``name``             of the environment, of its skill library and of its shipped model
    ``phrases``          regular expressions of set phrases, each kept in one piece by the tokenizer
    ``vocabulary_size``  at most so many tokens
    ``context_tokens``   longest conversation of the model
    ``max_turns``        turn limit of a demonstration
    ``split``            the split that a warm-started model is measured on
    """

    name: ClassVar[str]
    phrases: ClassVar[tuple[str, ...]] = ()
    vocabulary_size: ClassVar[int] = 1024
    context_tokens: ClassVar[int] = CONTEXT_TOKENS
    max_turns: ClassVar[int]
    split: ClassVar[str]

    @abstractmethod
    def environment(self, max_turns: int) -> Environment:
        """The environment with the texts that the tiny model knows."""

    @abstractmethod
    def task(self, seed: int, index: int) -> Task:
        """Task number ``index`` of the warm start's own split; a function of seed and index alone."""

    @abstractmethod
    def demonstrate(self, task: Task, rng: np.random.Generator, *, skilled: bool, max_turns: int) -> list[Step]:
        """Play a task: ``skilled``, as one who has read the right skills and follows them, or as a mediocre player."""

    @abstractmethod
    def misleading(self, task: Task, rng: np.random.Generator) -> Task:
        """A task whose skills are wrong for ``task``."""

    def response(self, step: Step) -> str:
        """A step in the environment's response format."""
        return f"<think>{step.thought}</think><action>{step.command}</action>"

    def shown(self, environment: Environment, task: Task, number: int, step: Step) -> str:  # noqa: ARG002
        """What the vocabulary is to know of what is seen before turn ``number``: the observation as it stands."""
        return step.observation

    def training(self) -> WarmStartSettings:
        """How the shipped model was trained."""
        return WarmStartSettings()

    def teacher(self) -> SkillTeacher:
        """The teacher context of a default run: the shipped library, by keywords."""
        return SkillTeacher(SkillLibrary.load(self.name), KeywordRetrieval())
