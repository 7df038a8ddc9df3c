"""Teachers whose text is assembled from parts, and whose items are kept whole or dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sdar.config.fields import AtLeastOne, BelowOne, checked
from sdar.environments.base import Environment
from sdar.episode import Episode, Task, TaskOutcome
from sdar.errors import UserError
from sdar.policy.chat import Position
from sdar.policy.language_model import LanguageModel
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import Retrieval
from sdar.teacher.base import Teacher
from sdar.teacher.parts import ContextPart, Item
from sdar.teacher.skills import HEADER, SkillPart
from sdar.teacher.weights import TeacherSource, TeacherWeights


class ContextTeacher(Teacher):
    """A teacher whose text is assembled from parts.

    Items are never cut. With a budget, whole items are dropped and counted, the lowest rank first, and the items of
    later parts before those of earlier ones. Rollouts leave room for text that is known before they start, so it fits.
    Text that is not known then (``possible`` is empty) is dropped as a whole, and counted, if the episode left no room.
    """

    @checked
    def __init__(
        self,
        parts: Mapping[str, ContextPart],
        source: TeacherSource = TeacherSource.OLD,
        ema_decay: BelowOne = 0.99,
        other: LanguageModel | None = None,
        keep_hidden: bool = False,
        position: Position = Position.USER_TURN,
        budget_tokens: AtLeastOne | None = None,
        share_prefixes: bool = True,
    ) -> None:
        """``parts``: by name, in reading order.

        ``position``: see :class:`sdar.policy.chat.Position`. ``budget_tokens``: longest text; None: no limit.

        The rest: see :class:`sdar.teacher.weights.TeacherWeights`. UserError for settings that contradict each other.
        """
        self.parts = list(parts.values())
        self.weights = TeacherWeights(source, ema_decay, other, keep_hidden, share_prefixes)
        self.position = Position(position)
        self.budget_tokens = budget_tokens
        self.known_before = all(part.known_before for part in self.parts)
        self._usage = _Usage()
        self._last = _Usage()
        self._in_prompts = False
        self._reserved = lru_cache(maxsize=65536)(self._longest)

    def connect(
        self, environment: Environment, count_tokens: Callable[[str], int], context_tokens: int | None = None
    ) -> None:
        """Connect the parts, too."""
        super().connect(environment, count_tokens, context_tokens)
        for part in self.parts:
            part.connect(environment, count_tokens)

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:
        """Prepare the parts."""
        self._usage, self._in_prompts = _Usage(), False
        for part in self.parts:
            part.begin(tasks, iteration=iteration, seed=seed)

    def privileged_text(self, task: Task, member: int = 0) -> str:
        """The concatenated texts of the parts; "" without any item."""
        self._in_prompts = True
        return self._text(self._fitting(self._known(task, member)))

    def _known(self, task: Task, member: int) -> list[list[Item]]:
        return [part.items(task, member) for part in self.parts]

    def evaluation_text(self, task: Task) -> str:
        """The text of evaluations; see :meth:`sdar.teacher.parts.ContextPart.evaluation_items`."""
        return self._text(self._fitting([part.evaluation_items(task) for part in self.parts]))

    def reserved_tokens(self, task: Task) -> int:
        """The longest text that the task may get from the parts that are known before; at most the budget."""
        return self._reserved(task)

    def _longest(self, task: Task) -> int:
        longest = sum(
            max((self.count_tokens(_part_text(part, items)) for items in part.possible(task)), default=0)
            for part in self.parts
        )
        return longest if self.budget_tokens is None else min(longest, self.budget_tokens)

    def contexts(self, episodes: Sequence[Episode]) -> list[str]:
        """The text of each episode; its items are counted until ``gather``."""
        groups: dict[str, list[Episode]] = {}
        for episode in episodes:
            groups.setdefault(episode.task.task_id, []).append(episode)
        self._usage = _Usage()
        texts = []
        for episode in episodes:
            offered = [part.items_after(episode, groups[episode.task.task_id]) for part in self.parts]
            kept = self._fitting(offered, episode)
            self._usage.add(offered, kept)
            texts.append(self._text(kept))
        return texts

    def _fitting(self, offered: Sequence[list[Item]], episode: Episode | None = None) -> list[list[Item]]:
        """The items of each part without those that are dropped, so that the text keeps to the budget.

        The text of a finished ``episode`` also fits into the room that the episode left. Rollouts left room for skills
        alone; if these do not fit all the same, scoring raises instead of dropping some.
        """
        room = None
        if self.context_tokens is not None and episode is not None:
            known = all(part.possible(episode.task) for part in self.parts)
            room = None if known else self.context_tokens - row_tokens(episode)

        def fits(text: str) -> bool:
            if self.budget_tokens is not None and self.count_tokens(text) > self.budget_tokens:
                return False
            return episode is None or room is None or self.count_behind(text, episode.preface) <= room

        kept = [list(items) for items in offered]
        while any(kept) and not fits(self._text(kept)):
            next(items for items in reversed(kept) if items).pop()
        return kept

    def _text(self, kept: Sequence[list[Item]]) -> str:
        return "".join(map(_part_text, self.parts, kept))

    def gather(self, episodes: Sequence[Episode]) -> list[Any]:
        """What this rank's teacher read (the policy, if the text was in the prompts), and the results of the parts."""
        if self._in_prompts and not self._usage.episodes:
            for episode in episodes:
                offered = self._known(episode.task, episode.member)
                self._usage.add(offered, self._fitting(offered))
        return [{"usage": self._usage.to_dict(), "parts": [part.gather(episodes) for part in self.parts]}]

    def observe(self, outcomes: Sequence[TaskOutcome], gathered: Sequence[Any]) -> None:
        """Sum what all ranks read, and call the parts."""
        self._last = _Usage()
        for share in gathered:
            self._last.add_dict(share["usage"])
        for index, part in enumerate(self.parts):
            part.observe(outcomes, [value for share in gathered for value in share["parts"][index]])

    def metrics(self) -> dict[str, float]:
        """Usage of the last iteration, and the metrics of the parts; {} if nothing was read."""
        if not self._last.episodes:
            return {}
        metrics = self._last.metrics()
        for part in self.parts:
            metrics |= part.metrics()
        return metrics

    def record(self) -> dict[str, Any]:
        """Usage of the last iteration in counts, and the records of the parts; {} if nothing was read."""
        if not self._last.episodes:
            return {}
        record = self._last.to_dict()
        for part in self.parts:
            record |= part.record()
        return record

    def state(self) -> dict[str, Any]:
        """The state of every part."""
        return {"parts": [part.state() for part in self.parts]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the state of every part; checkpoints of earlier versions have none, and then no part may need one."""
        states = state.get("parts", [{} for _ in self.parts])
        if len(states) != len(self.parts):
            raise UserError("ckpt_path names a checkpoint of a run with another teacher; it must be the same")
        for part, own in zip(self.parts, states, strict=True):
            part.load_state(own)


class SkillTeacher(ContextTeacher):
    """A teacher that reads skills (``teacher=skills``)."""

    @checked
    def __init__(
        self,
        library: SkillLibrary,
        retrieval: Retrieval,
        source: TeacherSource = TeacherSource.OLD,
        ema_decay: BelowOne = 0.99,
        other: LanguageModel | None = None,
        keep_hidden: bool = False,
        position: Position = Position.USER_TURN,
        budget_tokens: AtLeastOne | None = None,
        header: str = HEADER,
        share_prefixes: bool = True,
    ) -> None:
        """``header``: first line of the text. The rest: see :class:`ContextTeacher`."""
        self.library = library
        self.retrieval = retrieval
        parts = {"skills": SkillPart(library, retrieval, header)}
        super().__init__(parts, source, ema_decay, other, keep_hidden, position, budget_tokens, share_prefixes)


def _part_text(part: ContextPart, items: list[Item]) -> str:
    """Header line, then the items, each followed by a blank line; "" without any item.

    Source of the format: arXiv 2605.15155 and its released code (header, skills, blank line, prompt).
    """
    return f"{part.header}\n" + "\n\n".join(item.text for item in part.arrange(items)) + "\n\n" if items else ""


@dataclass
class _Usage:
    """What the teacher read for some episodes, and what was dropped for lack of room."""

    episodes: int = 0
    without_text: int = 0
    used: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)

    def add(self, offered: Sequence[list[Item]], kept: Sequence[list[Item]]) -> None:
        """Count one episode."""
        self.episodes += 1
        self.without_text += not any(kept)
        for items, left in zip(offered, kept, strict=True):
            self.used.update(item.name for item in left)
            self.given_up.update(item.name for item in items[len(left) :])

    def to_dict(self) -> dict[str, Any]:
        """Counts, sorted by name."""
        return {
            "episodes": self.episodes,
            "without_text": self.without_text,
            "used": dict(sorted(self.used.items())),
            "given_up": dict(sorted(self.given_up.items())),
        }

    def add_dict(self, counts: Mapping[str, Any]) -> None:
        """Add the counts of ``to_dict``."""
        self.episodes += counts["episodes"]
        self.without_text += counts["without_text"]
        self.used.update(counts["used"])
        self.given_up.update(counts["given_up"])

    def metrics(self) -> dict[str, float]:
        """Fractions of the episodes, and the mean number of dropped items per episode."""
        metrics = {f"skills/used/{name}": count / self.episodes for name, count in sorted(self.used.items())}
        metrics["skills/without_text_fraction"] = self.without_text / self.episodes
        metrics["skills/given_up_mean"] = self.given_up.total() / self.episodes
        return metrics


def row_tokens(episode: Episode) -> int:
    """Length in ids of an episode's longest row: all of its turns (append), or the longest turn (window)."""
    lengths = [len(turn.context_ids) + len(turn.response_ids) for turn in episode.turns]
    spliced = [turn.splice_index is not None for turn in episode.turns]
    return max(lengths, default=0) if len(lengths) > 1 and all(spliced) else sum(lengths)
