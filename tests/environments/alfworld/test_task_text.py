"""Task texts: parsing inverts the templates."""

import pytest

from sdar.environments.alfworld.game import TASK_TYPES
from sdar.environments.alfworld.task_text import TEMPLATES, TaskGoal, parse_task_text


def test_there_are_templates_for_every_task_type():
    assert set(TEMPLATES) == set(TASK_TYPES)


@pytest.mark.parametrize("task_type", TASK_TYPES)
@pytest.mark.parametrize("end", ["", ".", " "])
def test_what_is_written_is_read(task_type, end):
    for template in TEMPLATES[task_type]:
        goal = parse_task_text(template.format(obj="mug", target="desk") + end)
        assert goal == TaskGoal(task_type, "mug", "desk")


@pytest.mark.parametrize("text", ["", "make coffee", "put a mug", "put two mug in desk and leave"])
def test_other_texts_are_not_read(text):
    assert parse_task_text(text) is None


def test_what_a_goal_asks_for():
    hot, two = TaskGoal(TASK_TYPES[3], "mug", "desk"), TaskGoal(TASK_TYPES[5], "mug", "desk")
    assert (hot.treatment, hot.count) == ("heat", 1)
    assert (two.treatment, two.count) == (None, 2)
