"""Writing and parsing the sentences that state ALFRED tasks.

The templates are ALFWorld's interface strings (``alfworld`` 0.4.2, ``gen/goal_library.py``). Published and generated
games use the same ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdar.environments.facts import facts_beside

_FACTS = facts_beside(__file__)

TEMPLATES: dict[str, tuple[str, ...]] = _FACTS["templates"]
"""Two sentences per task type; ``target`` is a receptacle type, or the lamp of a look task."""

TREATMENTS: dict[str, str] = _FACTS["treatments"]
"""The verb of each task type in which the object must be treated first."""

APPLIANCES: dict[str, tuple[str, ...]] = _FACTS["appliances"]
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
