"""Every retrieval strategy: its choices, their order, and reproducible draws."""

from __future__ import annotations

from collections import Counter

import pytest

from sdar.episode import Task
from sdar.errors import UserError
from sdar.skills.bm25 import BM25Retrieval
from sdar.skills.controls import AdversarialRetrieval, RandomRetrieval
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import Draw, FullRetrieval, KeywordRetrieval, NoRetrieval, TaskTypeRetrieval
from sdar.skills.ucb import UCBRetrieval


def skill(name, *keywords, task_type=None, text=None):
    kind = SkillKind.TASK if task_type else SkillKind.GENERAL
    return Skill(name, kind, (task_type,) if task_type else (), keywords, text or f"About {name}.")


LIBRARY = SkillLibrary(
    (
        skill("basics"),
        skill("manners"),
        skill("cool", "cool", "cold", task_type="cooling", text="Carry it to the fridge."),
        skill("heat", "hot", "heat", task_type="heating", text="Carry it to the microwave and heat it."),
        skill("place", task_type="placing", text="Put it where it belongs."),
    )
)
EMPTY = SkillLibrary((skill("basics"),))
STRATEGIES = [
    KeywordRetrieval,
    TaskTypeRetrieval,
    FullRetrieval,
    NoRetrieval,
    RandomRetrieval,
    AdversarialRetrieval,
    BM25Retrieval,
    UCBRetrieval,
]


def task(description="put a hot mug in cabinet", task_type="heating", name="t"):
    return Task(name, task_type, description, "train", "hash")


def names(selection):
    return [s.name for s in selection]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_general_skills_are_read_first_rank_last_and_can_be_left_out(strategy):
    with_general, without = strategy(), strategy(general=False)
    read, ranked = with_general.select(LIBRARY, task()), with_general.ranked(LIBRARY, task())
    assert names(read)[:2] == ["basics", "manners"]
    assert names(read)[2:] == names(without.select(LIBRARY, task()))
    if strategy is not FullRetrieval:
        assert [choice.skill.name for choice in ranked][-2:] == ["basics", "manners"]
    assert all(choice.reason for choice in ranked)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_library_without_task_skills_gives_its_general_ones(strategy):
    assert names(strategy().select(EMPTY, task())) == ["basics"]
    assert strategy(general=False).select(EMPTY, task()) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_selected_is_among_what_is_possible(strategy):
    retrieval = strategy()
    tasks = [task(name=f"t{n}") for n in range(6)]
    possible = retrieval.possible(LIBRARY, tasks[0])
    retrieval.begin(LIBRARY, tasks)
    for one in tasks:
        for member in range(3):
            assert retrieval.select(LIBRARY, one, Draw(3, 1, member)) in possible
    assert retrieval.possible(LIBRARY, tasks[0]) == possible


def test_the_type_of_the_task_selects():
    assert names(TaskTypeRetrieval(general=False).select(LIBRARY, task("say nothing", "cooling"))) == ["cool"]
    assert TaskTypeRetrieval(general=False).select(LIBRARY, task("hot", "unknown")) == []


def test_full_ranks_what_fits_first_and_what_does_not_last():
    ranked = [choice.skill.name for choice in FullRetrieval().ranked(LIBRARY, task())]
    assert ranked == ["heat", "basics", "manners", "cool", "place"]
    assert names(FullRetrieval().select(LIBRARY, task())) == ["basics", "manners", "heat", "cool", "place"]


def test_none_reads_no_task_skill():
    assert NoRetrieval(general=False).select(LIBRARY, task()) == []


def test_random_draws_are_named_by_seed_iteration_task_and_member():
    def drawn(draw=None, name="t"):
        return names(RandomRetrieval(general=False).select(LIBRARY, task(name=name), draw or Draw(1, 2, 3)))

    assert drawn() == drawn()
    varied = [
        [drawn(Draw(seed, 0, 0)) for seed in range(12)],
        [drawn(Draw(0, iteration, 0)) for iteration in range(12)],
        [drawn(Draw(0, 0, member)) for member in range(12)],
        [drawn(name=f"t{n}") for n in range(12)],
    ]
    assert all(len({tuple(one) for one in found}) > 1 for found in varied)


def test_random_draws_every_task_skill_equally_often():
    retrieval = RandomRetrieval(general=False)
    counts = Counter(names(retrieval.select(LIBRARY, task(), Draw(0, i, 0)))[0] for i in range(3000))
    assert set(counts) == {"cool", "heat", "place"}
    # 1000 each; four standard deviations of a binomial are 103.
    assert all(abs(count - 1000) < 103 for count in counts.values())


def test_adversarial_skills_are_wrong_and_stay_with_their_task():
    retrieval = AdversarialRetrieval(general=False)
    found = {name: names(retrieval.select(LIBRARY, task(name=name), Draw(7, 0, 0))) for name in map(str, range(30))}
    assert {one for (one,) in found.values()} == {"cool", "place"}
    for name, chosen in found.items():
        assert names(retrieval.select(LIBRARY, task(name=name), Draw(7, 5, 3))) == chosen
    # Skills of the type and skills with a matching keyword are not wrong. If none is wrong, none is chosen.
    both = SkillLibrary((skill("cool", "cold", task_type="cooling"), skill("heat", "hot", task_type="heating")))
    assert retrieval.select(both, task("a cold mug", "heating")) == []


def test_a_share_of_the_tasks_gets_the_right_skill_instead_of_a_wrong_one():
    tasks = [task(name=str(number)) for number in range(400)]
    all_wrong, right = AdversarialRetrieval(general=False), KeywordRetrieval(general=False)
    noisy = AdversarialRetrieval(general=False, probability=0.25)
    wrong = 0
    for one in tasks:
        chosen = noisy.select(LIBRARY, one, Draw(7, 0, 0))
        assert chosen == noisy.select(LIBRARY, one, Draw(7, 5, 3))  # it keeps what it has
        assert chosen in noisy.possible(LIBRARY, one)
        wrong += chosen == all_wrong.select(LIBRARY, one, Draw(7))
        assert chosen in (all_wrong.select(LIBRARY, one, Draw(7)), right.select(LIBRARY, one))
    assert abs(wrong - 100) < 35  # four standard deviations of a binomial
    none = AdversarialRetrieval(general=False, probability=0)
    assert all(none.select(LIBRARY, one) == right.select(LIBRARY, one) for one in tasks)


def test_bm25_ranks_by_shared_words_and_leaves_out_what_shares_none():
    assert names(BM25Retrieval(general=False).select(LIBRARY, task("heat it in the microwave"))) == ["heat"]
    two = BM25Retrieval(general=False, top_k=2).select(LIBRARY, task("carry it to the fridge"))
    assert names(two) == ["cool", "heat"]
    assert BM25Retrieval(general=False, top_k=3).select(LIBRARY, task("nothing of the kind")) == []
    assert BM25Retrieval(general=False).select(LIBRARY, task("")) == []


def test_bm25_finds_nothing_in_skills_without_a_word():
    library = SkillLibrary((skill("a", task_type="x", text="I"), skill("b", task_type="y", text="the of a")))
    assert BM25Retrieval().select(library, task("the a")) == []
    more = SkillLibrary((*library, skill("c", task_type="z", text="mug")))
    assert names(BM25Retrieval().select(more, task())) == ["c"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_skills_for_other_task_types_do_no_harm(strategy):
    other, retrieval = task("sing a song", "singing"), strategy(general=False)
    retrieval.begin(LIBRARY, [other])
    expected = {
        KeywordRetrieval: [["place"]],  # the library's default
        FullRetrieval: [["cool", "heat", "place"], ["place", "cool", "heat"]],
        TaskTypeRetrieval: [[]],
        NoRetrieval: [[]],
        BM25Retrieval: [[]],
        AdversarialRetrieval: [["cool"], ["heat"]],  # and never the default, which keywords select
    }
    assert names(retrieval.select(LIBRARY, other)) in expected.get(strategy, [["cool"], ["heat"], ["place"]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: BM25Retrieval(top_k=0), "BM25Retrieval: top_k must be a whole number >= 1, got 0"),
        (lambda: UCBRetrieval(exploration=-1), "UCBRetrieval: exploration must be a number >= 0, got -1"),
        (lambda: UCBRetrieval(reward="praise"), "reward must be 'return' or 'gap_on_success', got 'praise'"),
        (
            lambda: AdversarialRetrieval(probability=1.5),
            "AdversarialRetrieval: probability must be a number >= 0 and <= 1, got 1.5",
        ),
        (lambda: UCBRetrieval(gap_slope=0), "UCBRetrieval: gap_slope must be a number > 0, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()
