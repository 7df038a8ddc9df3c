"""The teacher reads the retrieved skills, whole, in order, and the same for every member of a group."""

import pytest

from sdar.episode import Task, TaskOutcome
from sdar.errors import UserError
from sdar.skills.bm25 import BM25Retrieval
from sdar.skills.controls import AdversarialRetrieval, RandomRetrieval
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import (
    Choice,
    FullRetrieval,
    KeywordRetrieval,
    NoRetrieval,
    Retrieval,
    TaskTypeRetrieval,
)
from sdar.skills.ucb import UCBRetrieval
from sdar.teacher.context import SkillTeacher
from sdar.teacher.skills import misfits
from sdar.teacher.weights import TeacherSource, TeacherWeights
from toys.training import LettersEnvironment

LIBRARY = SkillLibrary(
    (
        Skill("heat", SkillKind.TASK, ("pick_heat",), ("hot",), "Use the microwave."),
        Skill("basics", SkillKind.GENERAL, (), (), "Look first."),
    )
)


def task(description):
    return Task("id", "pick_heat", description, "train", "hash")


def test_text_is_header_then_skills_then_a_blank_line():
    teacher = SkillTeacher(LIBRARY, KeywordRetrieval())
    assert teacher.privileged_text(task("put a hot mug in cabinet")) == (
        "[Privileged Skill Information]\nLook first.\n\nUse the microwave.\n\n"
    )
    assert teacher.privileged_text(task("put a mug in cabinet")) == "[Privileged Skill Information]\nLook first.\n\n"


def test_no_skill_gives_no_text_at_all():
    assert SkillTeacher(LIBRARY, KeywordRetrieval(general=False)).privileged_text(task("put a mug in cabinet")) == ""


def test_header_can_be_chosen():
    teacher = SkillTeacher(LIBRARY, KeywordRetrieval(), header="hints :")
    assert teacher.privileged_text(task("")) == "hints :\nLook first.\n\n"


def test_weights_are_the_old_ones_unless_asked_otherwise():
    assert SkillTeacher(LIBRARY, KeywordRetrieval()).weights == TeacherWeights(TeacherSource.OLD)
    assert SkillTeacher(LIBRARY, KeywordRetrieval(), source="ema").weights.source is TeacherSource.EMA


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "young"}, "source must be 'old' or 'current' or 'ema' or 'initial' or 'other', got 'young'"),
        ({"source": "other"}, r"teacher\.source=other needs a model; set teacher\.other"),
        ({"source": "ema", "keep_hidden": True}, r"teacher\.keep_hidden=true .*teacher\.source=ema"),
        ({"source": "ema", "ema_decay": 1.0}, r"ema_decay must be a number >= 0 and < 1, got 1\.0"),
    ],
)
def test_weights_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SkillTeacher(LIBRARY, KeywordRetrieval(), **settings)


THREE = SkillLibrary(
    (*LIBRARY, Skill("cool", SkillKind.TASK, ("pick_cool",), ("cold",), "Use the fridge, which is in the kitchen."))
)


class ByMember(Retrieval):
    """The first members read less than the later ones."""

    def choose(self, library, task, draw):
        return [Choice(skill, "drawn") for skill in library.task[: draw.member + draw.iteration]]


class Learning(Retrieval):
    """Reads one skill more for each iteration."""

    known = 0

    def choose(self, library, task, draw):
        return [Choice(skill, "learned") for skill in library.task[: self.known]]

    def observe(self, outcomes, solved_return):
        self.known += 1


@pytest.mark.parametrize("general", [True, False])
@pytest.mark.parametrize("strategy", [ByMember, Learning])
def test_a_strategy_that_draws_or_learns_never_gives_more_than_was_reserved(strategy, general):
    teacher, one = SkillTeacher(THREE, strategy(general)), task("put a hot mug in cabinet")
    teacher.connect(LettersEnvironment(), len)
    reserved = teacher.reserved_tokens(one)
    lengths = []
    for iteration in range(3):
        teacher.begin([one], iteration=iteration, seed=0)
        lengths += [len(teacher.privileged_text(one, member)) for member in range(3)]
        teacher.observe([TaskOutcome(one, 3, 0.0, 0.0, None)], teacher.gather([]))
    assert max(lengths) == reserved  # and it gives as much
    assert min(lengths) < reserved


@pytest.mark.parametrize("description", ["put a hot mug in cabinet", "a cold one", "nothing", "the fridge"])
@pytest.mark.parametrize("strategy", [KeywordRetrieval, TaskTypeRetrieval, FullRetrieval, NoRetrieval, BM25Retrieval])
def test_a_strategy_that_neither_draws_nor_learns_reserves_what_it_gives(strategy, description):
    teacher = SkillTeacher(THREE, strategy())
    teacher.connect(LettersEnvironment(), len)
    one = task(description)
    assert teacher.reserved_tokens(one) == len(teacher.privileged_text(one, 1))


@pytest.mark.parametrize("strategy", [RandomRetrieval, UCBRetrieval, AdversarialRetrieval])
def test_a_strategy_of_one_skill_reserves_the_longest_of_those_it_may_give(strategy):
    teacher = SkillTeacher(THREE, strategy())
    teacher.connect(LettersEnvironment(), len)
    longest = "[Privileged Skill Information]\nLook first.\n\nUse the fridge, which is in the kitchen.\n\n"
    assert teacher.reserved_tokens(task("put a hot mug in cabinet")) == len(longest)


def test_a_strategy_that_finds_no_task_skill_is_told_whatever_it_could_give():
    class Nothing(Retrieval):
        def choose(self, library, task, draw):
            return []

    assert "finds only general skills" in misfits(THREE, Nothing(), [task("put a hot mug in cabinet")])
    for strategy in (RandomRetrieval, UCBRetrieval, AdversarialRetrieval, FullRetrieval):
        assert misfits(THREE, strategy(), [task("put a hot mug in cabinet")]) == ""
