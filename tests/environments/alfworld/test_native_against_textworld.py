"""The native engine against the original on the hand-made household: same texts, commands and outcomes."""

import random

import pytest
from tiny_games import LOOK, NEVER, TWO, game, place

from sdar.environments.alfworld.native import NativeEngine

VARIANTS = {
    "from the middle of the room": (NEVER, {}),
    "facing a receptacle": (place("Mug", "Fridge"), {"start": "loc_bar_0"}),
    "things open, hot, sliced, on and inside others": (
        NEVER,
        {
            "facts": [
                "(inReceptacleObject Apple_bar_1 Bowl_bar_1)",
                "(opened Fridge_bar_1)",
                "(isHot Mug_bar_1)",
                "(isSliced Bread_bar_1)",
                "(isClean Bread_bar_1)",
                "(isToggled FloorLamp_bar_1)",
            ]
        },
    ),
    "a goal of two": (TWO.format(obj="Mug", target="Cabinet"), {}),
    "a goal in light": (LOOK.format(obj="Mug", target="DeskLamp"), {}),
}


@pytest.fixture(scope="module")
def original():
    pytest.importorskip("textworld")
    pytest.importorskip("alfworld")
    from sdar.environments.alfworld.textworld_engine import TextWorldEngine

    return TextWorldEngine()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_random_walk_is_answered_alike(original, variant):
    goal, parts = VARIANTS[variant]
    tiny = game(goal, **parts)
    native, answer = NativeEngine().load(tiny).start()
    oracle, expected = original.load(tiny).start()
    rng = random.Random(variant)
    assert answer == expected
    for _ in range(150):
        command = rng.choice([*expected.admissible, "take mug 1", "go to nowhere 1", ""])
        answer, expected = native.step(command), oracle.step(command)
        assert answer == expected, command
