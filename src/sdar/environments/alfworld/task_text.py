"""Writing and parsing the sentences that state ALFRED tasks.

The templates are ALFWorld's interface strings (``alfworld`` 0.4.2, ``gen/goal_library.py``). Published and generated
games use the same ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEMPLATES: dict[str, tuple[str, ...]] = {
    "pick_and_place_simple": ("put a {obj} in {target}", "put some {obj} on {target}"),
    "look_at_obj_in_light": ("look at {obj} under the {target}", "examine the {obj} with the {target}"),
    "pick_clean_then_place_in_recep": ("put a clean {obj} in {target}", "clean some {obj} and put it in {target}"),
    "pick_heat_then_place_in_recep": ("put a hot {obj} in {target}", "heat some {obj} and put it in {target}"),
    "pick_cool_then_place_in_recep": ("put a cool {obj} in {target}", "cool some {obj} and put it in {target}"),
    "pick_two_obj_and_place": ("put two {obj} in {target}", "find two {obj} and put them in {target}"),
}
"""Two sentences per task type; ``target`` is a receptacle type, or the lamp of a look task."""

TREATMENTS = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
}
"""The verb of each task type in which the object must be treated first."""

APPLIANCES = {"clean": ("sinkbasin", "sink"), "heat": ("microwave",), "cool": ("fridge",)}
"""Receptacle types that perform each treatment."""


@dataclass(frozen=True)
class TaskGoal:
    """The parts of a task text. Names are lower-case types as they appear in the text."""

    task_type: str
    obj: str
    target: str

    @property
    def treatment(self) -> str | None:
        """The verb of the treatment (clean, heat, cool), or None."""
        return TREATMENTS.get(self.task_type)

    @property
    def count(self) -> int:
        """Number of objects to place."""
        return 2 if self.task_type == "pick_two_obj_and_place" else 1


_PATTERNS = [
    (task_type, re.compile(template.format(obj=r"(?P<obj>\w+)", target=r"(?P<target>\w+)")))
    for task_type, templates in TEMPLATES.items()
    for template in templates
]


def parse_task_text(text: str) -> TaskGoal | None:
    """Parse a task text; None if it matches none of the templates."""
    for task_type, pattern in _PATTERNS:
        match = pattern.fullmatch(text.strip().rstrip("."))
        if match is not None:
            return TaskGoal(task_type, match["obj"], match["target"])
    return None
