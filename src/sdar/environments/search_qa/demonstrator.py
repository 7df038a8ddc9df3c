"""A player with the agent's view of the task, for the demonstrations of the warm start.

The skilled player looks up one fact after another, with the subject's full name and the encyclopedia's word for the
relation, and answers with the content of the right page. The mediocre one, at fixed rates, guesses, searches with half
a name or another word, trusts any page, and stops too early. Their difference is the gap between the plain and the
skill-conditioned view of the tiny model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdar.environments.demonstration import Step
from sdar.environments.search_qa import names
from sdar.environments.search_qa.protocol import information
from sdar.environments.search_qa.retriever import Hit, Retriever
from sdar.environments.search_qa.world import RELATIONS, Lookup, WorldQuestion, read_fact


@dataclass(frozen=True)
class Habits:
    """How often a demonstrator makes each mistake; every field is a probability in [0, 1].

    ``guess``      answer without a search
    ``vague``      search with a part of the name, or with the wrong word for the relation
    ``careless``   take the first page, whatever its subject
    ``stop_early`` answer after the first of two facts
    ``slip``       search for nonsense; slips are not imitated, the steps after them are
    """

    guess: float
    vague: float
    careless: float
    stop_early: float
    slip: float


SKILLED = Habits(guess=0.0, vague=0.0, careless=0.0, stop_early=0.0, slip=0.08)
MEDIOCRE = Habits(guess=0.35, vague=0.55, careless=0.6, stop_early=0.7, slip=0.05)


class Demonstrator:
    """Plays one question, knowing only the pages that it has read."""

    def __init__(
        self, question: WorldQuestion, retriever: Retriever, top_k: int, habits: Habits, rng: np.random.Generator
    ) -> None:
        self._question = question
        self._retriever = retriever
        self._top_k = top_k
        self._habits = habits
        self._rng = rng
        # Every thought restates the goal, so that the goal is never far back in the conversation.
        self._aim = aim(question)

    def play(self, max_turns: int) -> list[Step]:
        """Steps until it answers, which it does in the last turn at the latest."""
        question, habits = self._question, self._habits
        if self._chance(habits.guess):
            return [self._answer(question.text, "guess", self._guess())]
        wanted = question.lookups
        enough = 1 if len(wanted) > 1 and self._chance(habits.stop_early) else len(wanted)
        steps: list[Step] = []
        found: list[tuple[str, ...]] = []
        seen, note = question.text, "look up"
        while len(found) < enough and len(steps) < max_turns - 1:
            lookup = wanted[len(found)]
            subject = found[-1][0] if found and question.task_type == "multi_hop" else lookup.subject
            slips = self._chance(habits.slip)
            query = self._nonsense() if slips else self._query(lookup, subject)
            steps.append(Step(seen, f"{self._aim}: {note}", f"<search>{query}</search>", not slips))
            hits = self._search(query)
            seen = information(hits)
            read = self._read(lookup, subject, hits)
            note = "look again" if read is None else f"found {' and '.join(read)}, look up"
            if read is not None:
                found.append(read)
        steps.append(self._conclude(seen, found))
        return steps

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _choice(self, options: Sequence[str]) -> str:
        return options[int(self._rng.integers(len(options)))]

    def _search(self, query: str) -> list[Hit]:
        (found,) = self._retriever.search([query], self._top_k)
        assert isinstance(found, list), "the retriever of the closed world cannot fail"
        return found

    def _query(self, lookup: Lookup, subject: str) -> str:
        """The encyclopedia's word and the full name; if vague, half the name or another word."""
        if not self._chance(self._habits.vague):
            return f"{lookup.key} {subject}"
        if self._chance(0.5):
            return f"{lookup.key} {self._choice(subject.split())}"
        others = sorted(relation.key for relation in RELATIONS.values() if relation.key != lookup.key)
        return f"{self._choice(others)} {subject}"

    def _nonsense(self) -> str:
        keys = sorted(relation.key for relation in RELATIONS.values())
        return f"{self._choice(keys)} {self._choice(names.FIRST_NAMES)} {self._choice(names.FAMILY_NAMES)}"

    def _read(self, lookup: Lookup, subject: str, hits: Sequence[Hit]) -> tuple[str, ...] | None:
        """The fact on the page of the subject; if careless, the fact on the first page."""
        facts = [fact for hit in hits if (fact := read_fact(hit.passage.text)) is not None]
        if self._chance(self._habits.careless):
            return facts[0].objects if facts else None
        right = [fact for fact in facts if (fact.relation, fact.subject) == (lookup.relation, subject)]
        return right[0].objects if right else None

    def _conclude(self, seen: str, found: Sequence[tuple[str, ...]]) -> Step:
        if not found:
            return self._answer(seen, "guess", self._guess())
        shared = [name for name in found[0] if all(name in objects for objects in found)]
        choices = shared if self._question.task_type == "comparison" and shared else found[-1]
        answer = choices[0] if len(choices) == 1 else self._choice(choices)
        return self._answer(seen, f"found {answer}", answer)

    def _answer(self, seen: str, note: str, answer: str) -> Step:
        # With a leading space, as in the pages, a name is a single token.
        return Step(seen, f"{self._aim}: {note}", f"<answer> {answer}</answer>", True)

    def _guess(self) -> str:
        """A random answer of the right kind."""
        relation = self._question.lookups[-1].relation
        pools: dict[str, tuple[Sequence[str], ...]] = {
            "birthplace": (names.TOWN_FIRST, names.TOWN_SECOND),
            "trade": (names.TRADES,),
            "languages": (names.LANGUAGES,),
            "river": (names.RIVERS,),
        }
        words = pools.get(relation, (names.FIRST_NAMES, names.FAMILY_NAMES))
        return " ".join(self._choice(pool) for pool in words)


def aim(question: WorldQuestion) -> str:
    """The goal in the encyclopedia's words: "Silver Gate written, then born"."""
    first, *rest = question.lookups
    if question.task_type == "comparison":
        return f"want {first.subject} and {rest[0].subject} {first.key}"
    return ", then ".join([f"want {first.subject} {first.key}", *(lookup.key for lookup in rest)])


def solution(question: WorldQuestion) -> list[str]:
    """The actions of a player who knows which facts to look up."""
    searches = [f"<search>{lookup.key} {lookup.subject}</search>" for lookup in question.lookups]
    return [*searches, f"<answer>{question.answer}</answer>"]
