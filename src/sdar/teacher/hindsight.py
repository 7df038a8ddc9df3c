"""Hindsight: a teacher that reads an analysis of an episode after it was played.

As in SEED (arXiv 2607.14777) and OPID (arXiv 2606.26790), an analyzer reads the finished episode and the other attempts
of its group, and writes a few lines about what to do and what to avoid. With these lines in its context, the same
network scores the episode's tokens. Rollouts and evaluations never see them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sdar.config.fields import AtLeastOne, BelowOne, Temperature, checked
from sdar.episode import Episode, Task, Turn
from sdar.policy.chat import Position
from sdar.policy.language_model import LanguageModel
from sdar.rollout.sampling import turn_generator, turn_uniforms
from sdar.rollout.settings import SamplingConfig
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherSource, TeacherWeights


class Analyzer(ABC):
    """Writes a few lines about what an attempt teaches, the most important line first."""

    def begin(self, iteration: int, seed: int) -> None:  # noqa: B027 - optional
        """Called before an iteration is played."""

    def use(self, policy: LanguageModel) -> None:  # noqa: B027 - optional
        """Called once, before any other hook, with the trained policy."""

    @abstractmethod
    def lines(self, groups: Sequence[Sequence[Episode]]) -> list[list[list[str]]]:
        """Lines for every episode of every group. Deterministic: the same on any rank and after a resume."""


class RuleAnalyzer(Analyzer):
    """Derives the lines from the turns by rules. It needs no model and works in every environment.

    For a solved attempt, the lines name the actions of its solution, without those that changed nothing. For an
    unsolved attempt, they name the actions of the shortest solved attempt of its group. In both cases they name the
    attempt's actions that changed nothing.

    Args:
        siblings: whether lines may name actions of other attempts of the group.
        at_most: actions in one line: the last ones of a solution, the first ones of what to avoid.
    """

    @checked
    def __init__(self, siblings: bool = True, at_most: AtLeastOne = 12) -> None:
        self.siblings = siblings
        self.at_most = at_most

    def lines(self, groups: Sequence[Sequence[Episode]]) -> list[list[list[str]]]:
        """See :class:`Analyzer`."""
        return [[self._lines(episode, group) for episode in group] for group in groups]

    def _lines(self, episode: Episode, group: Sequence[Episode]) -> list[str]:
        solved = [other for other in group if other.success] if self.siblings else []
        example = episode if episode.success else min(solved, key=lambda other: len(other.turns), default=None)
        found = []
        if example is not None:
            actions = [turn.action for turn, idle in _judged(example) if not idle][-self.at_most :]
            who = "This attempt solves the task" if example is episode else "Do what another attempt solved it with"
            found.append(f"{who}: {', then '.join(actions)}.")
        avoid = list(dict.fromkeys(turn.action for turn, idle in _judged(episode) if turn.valid and idle))
        if avoid:
            found.append(f"Avoid what changes nothing here: {', '.join(avoid[: self.at_most])}.")
        if not all(turn.valid for turn in episode.turns):
            found.append("Keep to the format of an action.")
        return found


class PolicyAnalyzer(Analyzer):
    """Asks the policy itself, with the weights that played, what its attempt teaches.

    Args:
        instruction: the question, after the transcript.
        max_tokens: longest answer.
        temperature: of its sampling.
        max_concurrent: answers sampled at a time; bounds memory.
    """

    @checked
    def __init__(
        self,
        instruction: str = "In at most three sentences: what should the next attempt at this task do, and avoid?",
        max_tokens: AtLeastOne = 96,
        temperature: Temperature = 0.7,
        max_concurrent: AtLeastOne = 64,
    ) -> None:
        self.instruction = instruction
        self.sampling = SamplingConfig(temperature, 1.0, 0, max_tokens)
        self.max_concurrent = max_concurrent
        self._key: tuple[int, int] = (0, 0)

    def use(self, policy: LanguageModel) -> None:
        """Store the policy; its weights are read at every call."""
        self._policy = policy

    def begin(self, iteration: int, seed: int) -> None:
        """Answers are drawn by (seed, iteration, task, member)."""
        self._key = (iteration, seed)

    def lines(self, groups: Sequence[Sequence[Episode]]) -> list[list[list[str]]]:
        """One line per episode; none if even the outcome does not fit into the context."""
        episodes = [episode for group in groups for episode in group]
        found: list[list[str]] = []
        for start in range(0, len(episodes), self.max_concurrent):
            found += self._answers(episodes[start : start + self.max_concurrent])
        answers = iter(found)
        return [[next(answers) for _ in group] for group in groups]

    def _answers(self, episodes: Sequence[Episode]) -> list[list[str]]:
        iteration, seed = self._key
        key, count = ("hindsight", iteration), self.sampling.max_response_tokens
        prompts = {slot: ids for slot, episode in enumerate(episodes) if (ids := self._prompt(episode))}
        asked = {slot: episodes[slot] for slot in prompts}
        uniforms = {slot: turn_uniforms(seed, key, e.task.task_id, e.member, 0, count) for slot, e in asked.items()}
        answers: list[list[str]] = [[] for _ in episodes]
        if prompts:
            generator = turn_generator(self._policy, self.sampling)
            generator.start(len(episodes))
            for slot, ids in generator.respond(prompts, uniforms).items():
                line = " ".join(self._policy.chat.decode(ids).split())
                answers[slot] = [line] if line else []
        return answers

    def _prompt(self, episode: Episode) -> list[int]:
        """Transcript, outcome and instruction; the oldest turns are dropped first. Empty if nothing fits."""
        outcome = "The attempt solved the task." if episode.success else "The attempt did not solve the task."
        told = [f"{turn.observation.text}\n> {turn.action}" for turn in episode.turns]
        for first in range(len(told) + 1):
            text = "\n".join([episode.task.description, *told[first:], outcome, self.instruction])
            ids, _ = self._policy.chat.opening(text)
            if len(ids) + self.sampling.max_response_tokens <= self._policy.context_tokens:
                return list(ids)
        return []


class HindsightTeacher(Teacher):
    """A teacher that reads an analyzer's lines about the episode it scores.

    Rollouts leave ``budget_tokens`` free for them. Lines are never cut: the last ones are dropped until the text fits,
    and counted (``teacher/hindsight_lines_dropped``).

    Args:
        analyzer: writes the lines.
        budget_tokens: longest text.
        header: its first line.
        position: see :class:`sdar.policy.chat.Position`.

    The rest: see :class:`sdar.teacher.weights.TeacherWeights`. UserError for settings that contradict each other.
    """

    known_before = False

    @checked
    def __init__(
        self,
        analyzer: Analyzer,
        budget_tokens: AtLeastOne = 192,
        source: TeacherSource = TeacherSource.OLD,
        ema_decay: BelowOne = 0.99,
        other: LanguageModel | None = None,
        keep_hidden: bool = False,
        header: str = "[Privileged Hindsight]",
        position: Position = Position.USER_TURN,
        share_prefixes: bool = True,
    ) -> None:
        self.analyzer = analyzer
        self.budget_tokens = budget_tokens
        self.header = header
        self.position = Position(position)
        self.weights = TeacherWeights(source, ema_decay, other, keep_hidden, share_prefixes)
        self._counts = (0, 0)
        self._metrics: dict[str, float] = {}

    def use(self, policy: LanguageModel) -> None:
        """Pass the policy to the analyzer."""
        self.analyzer.use(policy)

    def privileged_text(self, task: Task, member: int = 0) -> str:  # noqa: ARG002
        """Empty: nothing is known before the episode."""
        return ""

    def reserved_tokens(self, task: Task) -> int:  # noqa: ARG002
        """The budget: the lines are not known yet."""
        return self.budget_tokens

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:  # noqa: ARG002
        """Pass iteration and seed to the analyzer."""
        self.analyzer.begin(iteration, seed)

    def contexts(self, episodes: Sequence[Episode]) -> list[str]:
        """The lines about each episode. Episodes that ended by an error get none, and are not used for others."""
        positions: dict[str, list[int]] = {}
        for i, episode in enumerate(episodes):
            if not episode.end.is_error:
                positions.setdefault(episode.task.task_id, []).append(i)
        texts, given, dropped = [""] * len(episodes), 0, 0
        groups = [[episodes[i] for i in members] for members in positions.values()]
        for members, found in zip(positions.values(), self.analyzer.lines(groups), strict=True):
            for i, lines in zip(members, found, strict=True):
                texts[i], kept = self._fitting(lines)
                given += kept
                dropped += len(lines) - kept
        self._counts = given, dropped
        return texts

    def _fitting(self, lines: Sequence[str]) -> tuple[str, int]:
        """The text of as many lines as fit, and their number."""
        for count in range(len(lines), 0, -1):
            text = "\n".join([self.header, *lines[:count]]) + "\n\n"
            if self.count_tokens(text) <= self.budget_tokens:
                return text, count
        return "", 0

    def gather(self, episodes: Sequence[Episode]) -> list[tuple[int, int]]:  # noqa: ARG002
        """Lines kept and dropped on this rank."""
        return [self._counts]

    def observe(self, outcomes: Sequence[object], gathered: Sequence[tuple[int, int]]) -> None:  # noqa: ARG002
        """Sum over the ranks."""
        for name, column in zip(("lines", "lines_dropped"), zip(*gathered, strict=True), strict=True):
            self._metrics[f"teacher/hindsight_{name}"] = float(sum(column))

    def metrics(self) -> dict[str, float]:
        """Lines that teachers read in the last iteration, and lines that did not fit, over all ranks."""
        return dict(self._metrics)


def _judged(episode: Episode) -> list[tuple[Turn, bool]]:
    """Every turn, and whether it was idle: invalid, refused, or without a change of state."""
    if not episode.turns:  # its first prompt had no room
        return []
    after = [turn.observation for turn in episode.turns[1:]] + [episode.last_observation]
    return [
        (turn, not turn.valid or (then is not None and (then.refused or then.anchor == turn.observation.anchor)))
        for turn, then in zip(episode.turns, after, strict=True)
    ]
