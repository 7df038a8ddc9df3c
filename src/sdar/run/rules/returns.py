"""What the settings must have in common with the size of an environment's rewards."""

from __future__ import annotations

from typing import Any


def remark(advantage: Any, solved_return: float) -> str | None:
    """A warning where advantages are never divided by the spread of a group's returns; None: they can be.

    Returns between 0 and ``solved_return`` have an unbiased standard deviation of about 0.53 times that in groups of
    eight at most, and 0.71 times in pairs.
    """
    floor = getattr(advantage, "std_floor", None)
    if floor is None or floor < solved_return / 2:
        return None
    fitting = f"algorithm.advantage.std_floor={solved_return / 10:g}"
    if getattr(advantage, "invalid_penalty", 0.0) != 0:
        fitting += f" and algorithm.advantage.invalid_penalty={solved_return / 100:g}"
    return (
        f"algorithm.advantage.std_floor={floor:g} is too large for an environment whose solved episodes return "
        f"{solved_return:g}: advantages are hardly ever divided by a group's spread, and small beside the other terms; "
        f"set {fitting}"
    )
