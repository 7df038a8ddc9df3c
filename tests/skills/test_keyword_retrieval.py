"""Keywords match whole words of the task's description and nothing else."""

import pytest

from sdar.episode import Task
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import KeywordRetrieval


def skill(name, *keywords, kind=SkillKind.TASK):
    return Skill(name, kind, ("some_type",) if kind is SkillKind.TASK else (), keywords, f"About {name}.")


def task(description):
    return Task("id", "some_type", description, "train", "hash", payload="hat cool two")


LIBRARY = SkillLibrary(
    (
        skill("basics", kind=SkillKind.GENERAL),
        skill("cool", "cool", "cold"),
        skill("hat", "hat"),
        skill("heat", "hot", "heat"),
        skill("look", "desk lamp", "desklamp"),
        skill("place"),
        skill("two", "two"),
    )
)


def selected(description, general=False):
    return [s.name for s in KeywordRetrieval(general).select(LIBRARY, task(description))]


@pytest.mark.parametrize(
    ("description", "names"),
    [
        ("put a hot mug in cabinet", ["heat"]),
        ("Put a HOT mug in cabinet.", ["heat"]),
        ("heat some egg and put it in diningtable", ["heat"]),
        ("put that hotdog in the cooler", ["place"]),  # hat, hot and cool are not words of it
        ("put two pen in drawer", ["two"]),
        ("examine the book with the desk \n lamp", ["look"]),
        ("look at the book under the desklamp", ["look"]),
        ("put a desk in lamp", ["place"]),
        ("put (hot) mug, please", ["heat"]),
        ("put hot_mug away", ["place"]),
        ("cool, cold tomato and two hot mugs", ["cool", "heat", "two"]),  # more matches first, then by name
        ("", ["place"]),
    ],
)
def test_whole_words_of_the_description_select(description, names):
    assert selected(description) == names


def test_in_a_library_without_keywords_the_type_selects():
    library = SkillLibrary(
        (
            skill("basics", kind=SkillKind.GENERAL),
            Skill("walk", SkillKind.TASK, ("some_type",), (), "About walking."),
            Skill("swim", SkillKind.TASK, ("another_type",), (), "About swimming."),
        )
    )
    assert [s.name for s in KeywordRetrieval(False).select(library, task("put a hot mug in cabinet"))] == ["walk"]


def test_general_skills_come_first_and_can_be_left_out():
    assert selected("put two pen in drawer", general=True) == ["basics", "two"]
    assert selected("put two pen in drawer", general=False) == ["two"]


def test_keywords_are_texts_and_not_patterns():
    library = SkillLibrary((skill("dots", "c.t", "c++"),))
    assert KeywordRetrieval().select(library, task("feed the cat")) == []
    assert KeywordRetrieval().select(library, task("learn c++ today")) == list(library)


def test_no_match_and_no_default_select_nothing():
    library = SkillLibrary((skill("heat", "hot"),))
    assert KeywordRetrieval().select(library, task("put a mug in cabinet")) == []
