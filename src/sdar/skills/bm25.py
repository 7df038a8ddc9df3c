"""Retrieval by the words that a task and a skill have in common, weighted by their rarity in the library."""

from __future__ import annotations

from functools import lru_cache

import bm25s

from sdar.config.fields import AtLeastOne, checked
from sdar.episode import Task
from sdar.skills.library import Skill, SkillLibrary
from sdar.skills.retrieval import Choice, Draw, FixedRetrieval


class BM25Retrieval(FixedRetrieval):
    """The task skills whose name, keywords and text score highest for the task's description (BM25 of bm25s).

    Args:
        general: whether to add the library's general skills.
        top_k: most skills per task. Skills without a word of the task are never chosen; ties keep the library's order.
    """

    @checked
    def __init__(self, general: bool = True, top_k: AtLeastOne = 1) -> None:
        super().__init__(general)
        self.top_k = top_k

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:  # noqa: ARG002
        """See the class."""
        known, index = _index(tuple(library.task))
        words = [word for word in _words(task.description) if word in known]
        if index is None or not words:
            return []
        scores = index.get_scores(words).tolist()
        ranked = sorted(zip(scores, library.task, strict=True), key=lambda match: -match[0])
        return [Choice(skill, f"BM25 score {score:.2f}") for score, skill in ranked[: self.top_k] if score > 0]


@lru_cache(maxsize=16)
def _index(skills: tuple[Skill, ...]) -> tuple[frozenset[str], bm25s.BM25 | None]:
    """All words of the skills, and their index; None if they have no words."""
    documents = [_words(" ".join([skill.name, *skill.keywords, skill.text])) for skill in skills]
    known = frozenset(word for document in documents for word in document)
    if not known:
        return known, None  # bm25s cannot index an empty collection
    index = bm25s.BM25(backend="numpy")
    index.index(documents, show_progress=False)
    return known, index


def _words(text: str) -> list[str]:
    """Lower-cased words of at least two letters, without English stop words (the rule of bm25s)."""
    (words,) = bm25s.tokenize([text], return_ids=False, show_progress=False)
    return [str(word) for word in words]
