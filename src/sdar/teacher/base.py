"""What the training asks of a teacher: what it reads and the student does not, and whose weights it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache

from sdar.environments.base import Environment
from sdar.episode import Episode, Task
from sdar.policy.chat import Position
from sdar.policy.language_model import LanguageModel
from sdar.teacher.hooks import IterationHooks
from sdar.teacher.weights import TeacherWeights


class Teacher(IterationHooks, ABC):
    """A source of privileged text. A teacher of one's own needs ``privileged_text``, or ``contexts`` in its place.

    In an iteration the calls are, in this order and on every rank:

    1. ``begin`` with the tasks of all ranks, before the first rollout;
    2. ``privileged_text`` of a task and member, where the text goes into the rollout itself;
    3. ``contexts`` with this rank's finished episodes, whole groups;
    4. ``gather`` with the same episodes, whose answers of all ranks are put together;
    5. ``observe`` with what became of every task of all ranks.

    Evaluation asks for ``evaluation_text`` alone, at any time, and must change nothing.
    """

    weights: TeacherWeights
    """Whose weights score what the teacher reads."""

    position: Position = Position.USER_TURN
    """Where its text stands in the prompts."""

    known_before: bool = True
    """Whether the text is known before the episode is played. Otherwise it cannot go into a rollout."""

    environment: Environment
    count_tokens: Callable[[str], int]
    context_tokens: int | None = None

    def connect(
        self, environment: Environment, count_tokens: Callable[[str], int], context_tokens: int | None = None
    ) -> None:
        """Called once, before any other hook.

        Args:
            environment: poses the tasks.
            count_tokens: how long a text is as a privileged block, in tokens.
            context_tokens: longest row the model takes; None: no limit.
        """
        self.environment = environment
        self.count_tokens = count_tokens
        self.context_tokens = context_tokens

    def use(self, policy: LanguageModel) -> None:
        """Called once, after ``connect``, with the policy that is trained."""

    def reserved_tokens(self, task: Task) -> int:
        """Tokens that rollouts of a task leave free for the teacher's block.

        It must not depend on what the teacher has learned, or scoring it would change the rollouts.
        """
        return self.count_tokens(self.privileged_text(task))

    @abstractmethod
    def privileged_text(self, task: Task, member: int = 0) -> str:
        """What the teacher reads of an episode that has not been played yet; "" for nothing."""

    def evaluation_text(self, task: Task) -> str:
        """What an evaluation with the teacher's text puts into the prompt of a task."""
        return self.privileged_text(task)

    def evaluation_tokens(self, task: Task) -> int:
        """Tokens that evaluations leave free: as many with the teacher's text in the prompt as without."""
        return self.count_tokens(self.evaluation_text(task)) if self.known_before else 0

    def contexts(self, episodes: Sequence[Episode]) -> list[str]:
        """What the teacher reads of each finished episode, "" for nothing; it sees whole groups, side by side."""
        return [self.privileged_text(episode.task, episode.member) for episode in episodes]


def join(teacher: Teacher, environment: Environment, policy: LanguageModel) -> None:
    """Bring together who teaches, where and whom: the policy's prompts get their place for the teacher's text."""
    policy.chat = policy.chat.at(teacher.position)
    count = lru_cache(maxsize=4096)(lambda text: len(policy.chat.privileged(text)))
    teacher.connect(environment, count, policy.context_tokens)
    teacher.use(policy)
