"""The expert: short solutions from any state, and None if there is none."""

import time

import pytest
from tiny_games import LOOK, TWO, place, play, start

from sdar.environments.alfworld.expert import solve
from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine

TASKS = {
    "put a mug in desk": (place("Mug", "Desk"), 4),
    "put a clean mug in desk": (place("Mug", "Desk", "(cleanable ?o) (isClean ?o) "), 6),
    "put a hot mug in desk": (place("Mug", "Desk", "(heatable ?o) (isHot ?o) "), 6),
    "put a cool apple in countertop": (place("Apple", "CounterTop", "(coolable ?o) (isCool ?o) "), 6),
    "put two mug in cabinet": (TWO.format(obj="Mug", target="Cabinet"), 5),
    "look at mug under the desklamp": (LOOK.format(obj="Mug", target="DeskLamp"), 4),
}


@pytest.mark.parametrize("text", TASKS)
def test_every_task_type_is_solved_in_the_fewest_commands(text):
    goal, fewest = TASKS[text]
    state = start(goal)
    state.reply("")
    plan = solve(state, text)
    assert plan is not None
    assert len(plan) == fewest
    assert not state.won  # the given state is not modified
    assert [state.step(command).won for command in plan] == [False] * (fewest - 1) + [True]


def test_a_solution_starts_from_where_things_stand():
    state = start(place("Mug", "Desk"))
    play(state, "go to countertop 1", "take mug 2 from countertop 1")
    assert solve(state, "put a mug in desk") == ["go to desk 1", "move mug 2 to desk 1"]


def test_a_solution_ends_with_the_win_of_a_thing_that_is_in_two_places():
    text, goal = "put a cool pan in shelf", place("Pan", "Shelf", "(coolable ?o) (isCool ?o) ")
    state = start(goal)
    state.reply("")
    assert solve(state, text) == [
        "go to countertop 1",
        "take pan 1 from countertop 1",
        "go to fridge 1",
        "cool pan 1 with fridge 1",
    ]


@pytest.mark.parametrize(
    "text", ["put a window in desk", "put a mug in safe", "make coffee", "heat some bowl and put it in desk"]
)
def test_what_cannot_be_done_has_no_solution(text):
    state = start()
    state.reply("")
    assert solve(state, text) is None


def test_a_walkthrough_is_found_from_the_middle_of_random_play():
    generator = HouseholdGenerator(GeneratorSettings())
    for index in range(12):
        game = generator.game("valid_seen", index)
        state, reply = NativeEngine().load(game).start()
        for step in range(8):
            reply = state.step(reply.admissible[(7 * step + index) % len(reply.admissible)])
        if not reply.won and state.held is None:
            plan = solve(state, game.task_text)
            assert plan is not None
            assert [state.step(command).won for command in plan][-1]


def test_a_default_game_is_solved_within_milliseconds():
    generator = HouseholdGenerator(GeneratorSettings())
    states = []
    for index in range(24):
        game = generator.game("train", index)
        states.append((NativeEngine().load(game).start()[0], game.task_text))
    began = time.process_time()
    for state, text in states:
        solve(state, text)
    assert (time.process_time() - began) / len(states) < 0.05  # about 3 ms on an idle machine
