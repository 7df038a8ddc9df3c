"""Demonstrators: skill pays off, and both players use only the agent's view and commands."""

from functools import lru_cache

import numpy as np
import pytest

from sdar.environments.alfworld.demonstrator import MEDIOCRE, SKILLED, Demonstrator
from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine
from sdar.environments.alfworld.task_text import parse_task_text
from sdar.randomness import keyed_generator

MAX_TURNS = 14


@lru_cache
def game(index):
    return HouseholdGenerator(GeneratorSettings()).game("warm_start", index)


def played(index, habits):
    state, reply = NativeEngine().load(game(index)).start()
    goal = parse_task_text(game(index).task_text)
    return Demonstrator(state, reply, goal, habits, keyed_generator(0, "test", index)).play(MAX_TURNS)


def test_skill_wins_far_more_often_over_100_games():
    skilled = np.mean([played(index, SKILLED)[1] for index in range(100)])
    mediocre = np.mean([played(index, MEDIOCRE)[1] for index in range(100)])
    assert skilled > 0.8
    assert mediocre > 0.1
    assert skilled - mediocre > 0.3


@pytest.mark.parametrize("habits", [SKILLED, MEDIOCRE])
def test_steps_replayed_show_the_observations_that_were_recorded(habits):
    for index in range(18):
        steps, won = played(index, habits)
        state, reply = NativeEngine().load(game(index)).start()
        assert 1 <= len(steps) <= MAX_TURNS
        for step in steps:
            assert step.observation == reply.text
            assert not reply.won
            reply = state.step(step.command)
        assert reply.won == won
        assert won or len(steps) == MAX_TURNS


def test_the_same_randomness_gives_the_same_steps():
    assert played(3, MEDIOCRE) == played(3, MEDIOCRE)


def test_only_slips_are_not_imitated_and_they_are_as_frequent_as_the_habit_says():
    for habits in (SKILLED, MEDIOCRE):
        steps = [step for index in range(60) for step in played(index, habits)[0]]
        slips = sum(not step.imitate for step in steps)
        assert abs(slips / len(steps) - habits.slip) < 0.05


def test_an_object_is_taken_only_after_it_was_read_about():
    for index in range(30):
        for habits in (SKILLED, MEDIOCRE):
            read = ""
            for step in played(index, habits)[0]:
                read += step.observation
                if step.imitate and step.command.startswith("take "):
                    item = step.command.removeprefix("take ").split(" from ")[0]
                    assert f"a {item}" in read
