"""The interface of a teacher: the text that it reads and the student does not, and its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache

from sdar.environments.base import Environment
from sdar.episode import Episode, Preface, Task
from sdar.policy.chat import Position
from sdar.policy.language_model import LanguageModel
from sdar.teacher.answers import checked_teacher_text
from sdar.teacher.hooks import IterationHooks
from sdar.teacher.weights import TeacherWeights


class Teacher(IterationHooks, ABC):
    """A source of privileged text. A custom teacher implements ``privileged_text`` and may override ``contexts``.

    An iteration calls, in this order and on every rank:

    1. ``begin`` with the tasks of all ranks, before the first rollout;
    2. ``privileged_text`` for a task and member, if the text goes into the rollout itself;
    3. ``contexts`` with this rank's finished episodes, whole groups;
    4. ``gather`` with the same episodes; the results of all ranks are combined;
    5. ``observe`` with the outcome of every task of all ranks.

    Evaluation calls only ``evaluation_text``, at any time; it must not change the teacher.
    """

    weights: TeacherWeights
    """The weights that score what the teacher reads."""

    position: Position = Position.USER_TURN
    """Where its text goes in the prompts."""

    known_before: bool = True
    """Whether the text is known before the episode is played. Otherwise it cannot go into a rollout."""

    environment: Environment
    count_tokens: Callable[[str], int]
    count_behind: Callable[[str, Preface | None], int]
    """Length of a text as a privileged block of an episode with that preface, in tokens."""
    context_tokens: int | None = None

    def connect(
        self, environment: Environment, count_tokens: Callable[[str], int], context_tokens: int | None = None
    ) -> None:
        """Called once, before any other hook.

        Args:
            environment: owner of the tasks.
            count_tokens: length of a text as a privileged block, in tokens.
            context_tokens: longest row of the model; None: no limit.
        """
        self.environment = environment
        self.count_tokens = count_tokens
        self.count_behind = lambda text, _preface: count_tokens(text)
        self.context_tokens = context_tokens

    def use(self, policy: LanguageModel) -> None:
        """Called once, after ``connect``, with the trained policy."""

    def reserved_tokens(self, task: Task) -> int:
        """Tokens that rollouts of a task leave free for the teacher's block.

        They must not depend on what the teacher has learned: otherwise scoring it would change the rollouts.
        """
        return self.count_tokens(self.privileged_text(task))

    @abstractmethod
    def privileged_text(self, task: Task, member: int = 0) -> str:
        """The text for an episode that has not been played yet; "" for none."""

    def evaluation_text(self, task: Task) -> str:
        """The text that an evaluation with the teacher's text puts into the prompt of a task."""
        return self.privileged_text(task)

    def evaluation_tokens(self, task: Task) -> int:
        """Tokens that evaluations leave free, the same with and without the teacher's text in the prompt."""
        return self.count_tokens(self.evaluation_text(task)) if self.known_before else 0

    def contexts(self, episodes: Sequence[Episode]) -> list[str]:
        """The text for each finished episode, "" for none; the episodes are whole groups, in order."""
        return [self.privileged_text(episode.task, episode.member) for episode in episodes]


def join(teacher: Teacher, environment: Environment, policy: LanguageModel) -> None:
    """Connect teacher, environment and policy: the policy's prompts get their place for the teacher's text."""
    policy.chat = policy.chat.at(teacher.position)
    length = lru_cache(maxsize=4096)(lambda text: len(policy.chat.privileged(text)))

    def count(text: str) -> int:
        # What a teacher says is counted before it is read anywhere.
        return length(checked_teacher_text(teacher, text))

    def count_behind(text: str, preface: Preface | None) -> int:
        return len(policy.chat.prefaced(preface).privileged(text)) if preface else count(text)

    teacher.connect(environment, count, policy.context_tokens)
    teacher.count_behind = count_behind
    teacher.use(policy)
