"""The usual places in the shipped ALFWorld skills are those of the generator."""

import re

import pytest

from sdar.environments.alfworld import world
from sdar.environments.alfworld.task_text import APPLIANCES
from sdar.skills.library import SkillLibrary

TEXTS = {skill.name: skill.text for skill in SkillLibrary.load("alfworld")}
ROOM_NAMES = {"kitchen": "kitchen", "bedroom": "bedroom", "living room": "livingroom", "bathroom": "bathroom"}


def usual(room):
    return {what.lower(): tuple(place.lower() for place in spots) for what, spots in world.USUAL_PLACES[room].items()}


def pairs(text):
    """``apple: fridge, then countertop`` as {apple: (fridge, countertop)}."""
    return {what: (first, second) for what, first, second in re.findall(r"(\w+): (\w+), then (\w+)", text)}


@pytest.mark.parametrize(
    ("skill", "task_type"),
    [
        ("clean", "pick_clean_then_place_in_recep"),
        ("heat", "pick_heat_then_place_in_recep"),
        ("cool", "pick_cool_then_place_in_recep"),
    ],
)
def test_treatment_skills_name_both_usual_places_of_everything_that_can_be_treated(skill, task_type):
    kinds = world.OBJECTS_OF_TASK[task_type]
    assert kinds is not None
    expected = {
        what: spots
        for room in world.ROOMS_OF_TASK[task_type]
        for what, spots in usual(room).items()
        if what in {kind.lower() for kind in kinds}
    }
    assert pairs(TEXTS[skill]) == expected


@pytest.mark.parametrize("skill", ["clean", "heat", "cool"])
def test_treatment_skills_name_the_appliance(skill):
    assert f"Only the {APPLIANCES[skill][0]} {skill}s." in TEXTS[skill]


def test_the_light_skill_names_both_usual_places_room_by_room():
    sections = re.findall(r"Usual places in a ([a-z ]+?)\. (.*)", TEXTS["look"])
    assert {ROOM_NAMES[room]: pairs(line) for room, line in sections} == {
        room: usual(room) for room in world.ROOMS_OF_TASK["look_at_obj_in_light"]
    }


@pytest.mark.parametrize("skill", ["place", "two"])
def test_placing_skills_name_the_most_usual_place_room_by_room(skill):
    found = {}
    for room, line in re.findall(r"In a ([a-z ]+?): (.*)\.", TEXTS[skill]):
        groups = (group.split(": ") for group in line.split("; "))
        found[ROOM_NAMES[room]] = {what: place for place, things in groups for what in things.split(", ")}
    assert found == {room: {what: spots[0] for what, spots in usual(room).items()} for room in world.ROOMS}
