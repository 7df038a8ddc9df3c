"""The closed world as a source of questions, with BM25 over its encyclopedia."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.demonstrator import solution
from sdar.environments.search_qa.questions import Question
from sdar.environments.search_qa.world import World, WorldQuestion, WorldSettings
from sdar.errors import UserError

SPLITS = ("train", "valid")

_ANY = ""
"""Stands for all kinds of answer."""


class ClosedWorld:
    """Questions about two worlds without common names, and one encyclopedia of both."""

    splits = SPLITS

    def __init__(self, settings: WorldSettings, num_tasks: Sequence[int]) -> None:
        if len(num_tasks) != len(SPLITS):
            raise UserError(
                f"environment.num_tasks must be a list of {len(SPLITS)} numbers ({', '.join(SPLITS)}), "
                f"got {list(num_tasks)}"
            )
        self._worlds = {split: World(settings, split) for split in SPLITS}
        self._num_tasks = dict(zip(SPLITS, num_tasks, strict=True))

    def questions(self, split: str) -> list[Question]:
        """The questions of a split. Raises UserError if its world has fewer than ``num_tasks``."""
        world, count = self._worlds[split], self._num_tasks[split]
        if count > world.num_questions:
            raise UserError(
                f"environment.num_tasks={list(self._num_tasks.values())}, but the world of {split} has only "
                f"{world.num_questions} questions; reduce num_tasks, or enlarge environment.world"
            )
        return [as_question(world.question(index), f"{index:05d}") for index in range(count)]

    @cached_property
    def retriever(self) -> Bm25Retriever:
        """BM25 over the pages of both worlds."""
        return Bm25Retriever([passage for world in self._worlds.values() for passage in world.passages])

    def frequent_answer(self, kind: str) -> str:
        """The most frequent answer of the training questions of a kind; of all of them where none is of the kind."""
        return self._frequent_answers.get(kind, self._frequent_answers[_ANY])

    @cached_property
    def _frequent_answers(self) -> Mapping[str, str]:
        counts: dict[str, Counter[str]] = {}
        for question in self.questions("train"):
            for kind in (question.kind, _ANY):
                counts.setdefault(kind, Counter())[question.golden_answers[0]] += 1
        return {kind: min(found, key=lambda name: (-found[name], name)) for kind, found in counts.items()}


def as_question(question: WorldQuestion, number: str) -> Question:
    """A question of a world as a question of the environment."""
    return Question(
        question_id=number,
        task_type=question.task_type,
        text=question.text,
        golden_answers=(question.answer,),
        solution=tuple(solution(question)),
        kind=question.lookups[-1].relation,
    )
