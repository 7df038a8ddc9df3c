"""The closed world: facts that cannot be guessed, questions with one answer, and splits without common names."""

from __future__ import annotations

from itertools import combinations

import pytest

from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.world import RELATIONS, TYPES, World, WorldSettings, read_fact, split_names
from sdar.errors import UserError

SMALL = WorldSettings(people=40, towns=12, books=16)


def test_a_world_is_the_same_on_every_machine_and_depends_on_its_names_alone() -> None:
    world, again = World(SMALL, "train"), World(SMALL, "train")
    assert world.passages == again.passages
    assert [world.question(n) for n in range(40)] == [again.question(n) for n in reversed(range(40))][::-1]
    for other in (World(SMALL, "train", 1), World(SMALL, "valid"), World(WorldSettings(1, 40, 12, 16), "train")):
        assert other.passages != world.passages


def test_splits_share_no_name() -> None:
    for kind in range(3):
        pools = [set(names[kind]) for names in split_names(0).values()]
        assert all(not first & second for first, second in combinations(pools, 2))
    train, valid = World(WorldSettings(), "train"), World(WorldSettings(), "valid")
    assert not train.names & valid.names
    for index in range(200):
        assert not any(name in valid.question(index).text for name in train.names)


def test_every_paragraph_states_its_fact_and_nothing_else() -> None:
    world = World(SMALL, "train")
    read = {}
    for passage in world.passages:
        fact = read_fact(passage.text)
        assert fact is not None
        assert fact.subject == passage.title
        assert fact.key in passage.text.replace(".", "").split()
        read[fact.relation, fact.subject] = fact.objects
    assert read == world.facts
    assert read_fact("Nothing of the kind.") is None


def test_the_answer_follows_from_the_facts_and_from_no_others() -> None:
    """Following each question's chain through the paragraphs leads to its answer and to no other."""
    world = World(SMALL, "train")
    pages = {
        (fact.relation, fact.subject): fact.objects for fact in map(read_fact, (p.text for p in world.passages)) if fact
    }
    for index in range(80):
        question = world.question(index)
        assert question.task_type == TYPES[index % 4]
        answers = [set(pages[lookup.relation, lookup.subject]) for lookup in question.lookups]
        if question.task_type == "comparison":
            assert answers[0] & answers[1] == {question.answer}
        elif question.task_type == "multi_hop":
            assert answers[0] == {question.lookups[1].subject}
            assert question.lookups[1].subject not in question.text
        assert question.answer in answers[-1]
        assert question.lookups[0].subject in question.text
        assert question.answer not in question.text


def test_no_two_questions_of_a_world_ask_the_same() -> None:
    world = World(SMALL, "train")
    asked = [world.question(index) for index in range(world.num_questions)]
    assert len({(q.task_type, q.lookups) for q in asked}) == len(asked)


def test_questions_come_in_several_wordings() -> None:
    world = World(WorldSettings(), "train")
    texts = [world.question(index).text for index in range(400)]
    for relation in RELATIONS.values():
        for form in relation.questions:
            beginning = form.partition("{s}")[0]
            assert any(text.startswith(beginning) for text in texts), form


@pytest.mark.parametrize("split", ["train", "valid"])
def test_each_fact_is_found_by_its_word_and_the_full_name(split: str) -> None:
    world = World(WorldSettings(), split)
    retriever = Bm25Retriever(world.passages)
    for index in range(100):
        for lookup in world.question(index).lookups:
            (hits,) = retriever.search([f"{lookup.key} {lookup.subject}"], 1)
            assert isinstance(hits, list)
            fact = read_fact(hits[0].passage.text)
            assert fact == lookup


@pytest.mark.parametrize("wrong", [{"people": 1}, {"people": -3}, {"towns": 0}, {"books": 0}])
def test_a_world_without_anyone_in_it_is_refused(wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"WorldSettings\.{name} must be a whole number >= [12], got {value}"):
        WorldSettings(**wrong)
