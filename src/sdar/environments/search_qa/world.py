"""The closed world: a generated knowledge base, its encyclopedia, and questions about it.

People are born in towns, work in trades, are taught by people and speak languages; books are written by people; towns
lie on rivers and have mayors. Every fact is a paragraph under the title of its subject. Facts are random: no answer
can be guessed from a name, so a question requires a search. The worlds of different splits have no names in common.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, product
from typing import Annotated

import numpy as np
from annotated_types import Ge

from sdar.config.fields import AtLeastOne, settings
from sdar.environments.facts import facts_beside
from sdar.environments.search_qa import names
from sdar.environments.search_qa.retriever import Passage
from sdar.randomness import keyed_generator

SHARES = {"train": 0.4, "valid": 0.15, "warm_start": 0.45}
"""Shares of the names: each name belongs to the worlds of one split."""

TYPES = ("comparison", "direct_retrieval", "entity_attribute", "multi_hop")
"""Types of questions, named as in the skills of arXiv 2605.15155."""


@dataclass(frozen=True)
class Relation:
    """A kind of fact.

    ``key``        a word that occurs in its paragraphs and in those of no other relation
    ``sentences``  forms of a paragraph; {s} is the subject, {o} the object
    ``questions``  forms of a question for the object; {s} is the subject or a description of it
    ``noun``       description of the object by the subject ("the author of {s}"), for questions of two steps
    """

    key: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    noun: str = ""


RELATIONS = {name: Relation(**fields) for name, fields in facts_beside(__file__)["relations"].items()}

_DIRECT = ("author", "river", "mayor")
_ATTRIBUTES = ("birthplace", "trade", "teacher")
_CHAINS = tuple(
    (inner, outer) for inner, outer in product(("author", "mayor", "teacher"), _ATTRIBUTES) if inner != outer
)


@dataclass(frozen=True)
class Lookup:
    """One fact that a question needs: a relation, its subject, and its objects in the encyclopedia."""

    relation: str
    subject: str
    objects: tuple[str, ...]

    @property
    def key(self) -> str:
        """The word that marks the paragraph."""
        return RELATIONS[self.relation].key


@dataclass(frozen=True)
class WorldQuestion:
    """A question, its only answer, and the facts to look up, in order."""

    task_type: str
    text: str
    answer: str
    lookups: tuple[Lookup, ...]


@settings(frozen=True)
class WorldSettings:
    """How a world is generated.

    ``seed``    seed of the names of each split and of all facts
    ``people``  number of people, limited by the available names; at least 2, since no one is their own teacher
    ``towns``   number of towns, limited by the available names
    ``books``   number of books, limited by the available names
    """

    seed: int = 0
    people: Annotated[int, Ge(2)] = 300
    towns: AtLeastOne = 90
    books: AtLeastOne = 120


class World:
    """The knowledge base number ``number`` of a split."""

    def __init__(self, settings: WorldSettings, split: str, number: int = 0) -> None:
        self.settings = settings
        self.split = split
        self.number = number
        people, towns, books = split_names(settings.seed)[split]
        self._people = self._some("people", people, settings.people)
        self._towns = self._some("towns", towns, settings.towns)
        self._books = self._some("books", books, settings.books)

    def _rng(self, *key: int | str) -> np.random.Generator:
        return keyed_generator(self.settings.seed, "closed world", self.split, self.number, *key)

    def _some(self, kind: str, pool: Sequence[str], count: int) -> list[str]:
        order = self._rng("names", kind).permutation(len(pool))
        return [pool[i] for i in order[:count]]

    @cached_property
    def facts(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Objects by (relation, subject), in a stable order."""
        facts: dict[tuple[str, str], tuple[str, ...]] = {}
        rng = self._rng("facts")

        def one(pool: Sequence[str], other: str = "") -> tuple[str, ...]:
            while (chosen := pool[int(rng.integers(len(pool)))]) == other:
                pass
            return (chosen,)

        for person in self._people:
            facts["birthplace", person] = one(self._towns)
            facts["trade", person] = one(names.TRADES)
            facts["teacher", person] = one(self._people, other=person)
            first, second = rng.choice(len(names.LANGUAGES), size=2, replace=False)
            facts["languages", person] = (names.LANGUAGES[first], names.LANGUAGES[second])
        for book in self._books:
            facts["author", book] = one(self._people)
        for town in self._towns:
            facts["river", town] = one(names.RIVERS)
            facts["mayor", town] = one(self._people)
        return facts

    @cached_property
    def passages(self) -> list[Passage]:
        """The encyclopedia, a paragraph per fact."""
        rng = self._rng("paragraphs")
        found: list[Passage] = []
        for (relation, subject), objects in self.facts.items():
            forms = RELATIONS[relation].sentences
            text = forms[int(rng.integers(len(forms)))].format(s=subject, o=" and ".join(objects))
            number = f"{self.split}-{self.number}-{len(found)}"
            found.append(Passage(number, f'"{subject}"\n{text}'))
        return found

    @property
    def names(self) -> frozenset[str]:
        """Everything that has a page."""
        return frozenset([*self._people, *self._towns, *self._books])

    def question(self, index: int) -> WorldQuestion:
        """Question number ``index``, below :attr:`num_questions`. Types alternate, and no question occurs twice."""
        task_type = TYPES[index % len(TYPES)]
        rng = self._rng("question", index)
        return self._ask(task_type, self._topics[task_type][index // len(TYPES)], rng)

    @property
    def num_questions(self) -> int:
        """Number of questions until a type is exhausted."""
        return min(len(topics) for topics in self._topics.values()) * len(TYPES)

    @cached_property
    def _topics(self) -> dict[str, list[tuple[str, ...]]]:
        """Shuffled topics by type: (relation, subject), (person, person), or (inner, outer, subject)."""
        spoken = {person: set(self.facts["languages", person]) for person in self._people}
        pairs = combinations(self._people, 2)
        topics: dict[str, list[tuple[str, ...]]] = {
            "comparison": [pair for pair in pairs if len(spoken[pair[0]] & spoken[pair[1]]) == 1],
            "direct_retrieval": [fact for fact in self.facts if fact[0] in _DIRECT],
            "entity_attribute": [fact for fact in self.facts if fact[0] in _ATTRIBUTES],
            "multi_hop": [
                (inner, outer, subject)
                for inner, outer in _CHAINS
                for relation, subject in self.facts
                if relation == inner
            ],
        }
        return {
            name: [found[i] for i in self._rng("topics", name).permutation(len(found))]
            for name, found in topics.items()
        }

    def _ask(self, task_type: str, topic: tuple[str, ...], rng: np.random.Generator) -> WorldQuestion:
        if task_type == "comparison":
            first, second = (self._lookup("languages", person) for person in topic)
            (shared,) = set(first.objects) & set(second.objects)
            text = _worded("languages", rng, s=first.subject, t=second.subject)
            return WorldQuestion(task_type, text, shared, (first, second))
        if task_type == "multi_hop":
            inner, outer, subject = topic
            middle = self._lookup(inner, subject)
            last = self._lookup(outer, middle.objects[0])
            text = _worded(outer, rng, s=RELATIONS[inner].noun.format(s=subject))
            return WorldQuestion(task_type, text, last.objects[0], (middle, last))
        fact = self._lookup(*topic)
        return WorldQuestion(task_type, _worded(fact.relation, rng, s=fact.subject), fact.objects[0], (fact,))

    def _lookup(self, relation: str, subject: str) -> Lookup:
        return Lookup(relation, subject, self.facts[relation, subject])


@lru_cache(maxsize=1)
def _forms() -> list[tuple[str, re.Pattern[str]]]:
    """A pattern for each form of a paragraph."""
    return [
        (name, re.compile("^" + re.escape(form).replace(r"\{s\}", "(?P<s>.+?)").replace(r"\{o\}", "(?P<o>.+?)") + "$"))
        for name, relation in RELATIONS.items()
        # the longer form first: "was born in the town of X" also matches "was born in X"
        for form in sorted(relation.sentences, key=len, reverse=True)
    ]


def read_fact(paragraph: str) -> Lookup | None:
    """The fact of a paragraph of the encyclopedia; None for any other text."""
    for relation, pattern in _forms():
        found = pattern.match(paragraph)
        if found:
            return Lookup(relation, found["s"], tuple(found["o"].split(" and ")))
    return None


def _worded(relation: str, rng: np.random.Generator, **parts: str) -> str:
    forms = RELATIONS[relation].questions
    return forms[int(rng.integers(len(forms)))].format(**parts)


@lru_cache(maxsize=8)
def split_names(seed: int) -> dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """Names of people, towns and books by split. No two splits have a name in common."""
    pairs = (
        (names.FIRST_NAMES, names.FAMILY_NAMES),
        (names.TOWN_FIRST, names.TOWN_SECOND),
        (names.TITLE_FIRST, names.TITLE_SECOND),
    )
    dealt: dict[str, list[tuple[str, ...]]] = {split: [] for split in SHARES}
    for kind, (first, second) in enumerate(pairs):
        pool = [f"{one} {other}" for one, other in product(first, second)]
        order = keyed_generator(seed, "closed world", "names", kind).permutation(len(pool))
        start = 0.0
        for split, share in SHARES.items():
            chosen = order[round(start * len(pool)) : round((start + share) * len(pool))]
            dealt[split].append(tuple(pool[i] for i in chosen))
            start += share
    return {split: (people, towns, books) for split, (people, towns, books) in dealt.items()}
