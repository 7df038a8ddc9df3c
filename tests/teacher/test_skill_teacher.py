"""The teacher reads the retrieved skills, whole, in order, and the same for every member of a group."""

import pytest

from sdar.episode import Task
from sdar.errors import UserError
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval
from sdar.teacher.context import SkillTeacher
from sdar.teacher.weights import TeacherSource, TeacherWeights

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
