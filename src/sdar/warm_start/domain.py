"""The interface between a warm start and an environment."""

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
from sdar.warm_start.settings import WarmStartSettings

SPLIT = "warm_start"
"""The split of demonstrations, which training and evaluation never use."""


class Domain(ABC):
    """Demonstrators and vocabulary of one environment.

    ``name``             of the environment, of its skill library and of its shipped model
    ``phrases``          regular expressions of phrases that the tokenizer never splits
    ``vocabulary_size``  most tokens of the vocabulary
    ``context_tokens``   context length of the model
    ``max_turns``        turn limit of a demonstration
    ``split``            the split on which a warm-started model is evaluated
    """

    name: ClassVar[str]
    phrases: ClassVar[tuple[str, ...]] = ()
    vocabulary_size: ClassVar[int] = 1024
    context_tokens: ClassVar[int] = CONTEXT_TOKENS
    max_turns: ClassVar[int]
    split: ClassVar[str]

    @abstractmethod
    def environment(self, max_turns: int) -> Environment:
        """The environment with the texts of the tiny model."""

    @abstractmethod
    def task(self, seed: int, index: int) -> Task:
        """Task number ``index`` of the warm start's split, a function of seed and index only."""

    @abstractmethod
    def demonstrate(self, task: Task, rng: np.random.Generator, *, skilled: bool, max_turns: int) -> list[Step]:
        """Play a task, as a player who follows the right skills (``skilled``) or as a mediocre one."""

    @abstractmethod
    def misleading(self, task: Task, rng: np.random.Generator) -> Task:
        """A task whose skills are wrong for ``task``."""

    def response(self, step: Step) -> str:
        """A step in the environment's response format."""
        return f"<think>{step.thought}</think><action>{step.command}</action>"

    def shown(self, environment: Environment, task: Task, number: int, step: Step) -> str:  # noqa: ARG002
        """The text before turn ``number`` for the vocabulary; by default the observation."""
        return step.observation

    def training(self) -> WarmStartSettings:
        """Training settings of the shipped model."""
        return WarmStartSettings()

    def teacher(self) -> SkillTeacher:
        """The teacher of a default run: the shipped library with keyword retrieval."""
        return SkillTeacher(SkillLibrary.load(self.name), KeywordRetrieval())
