"""Damaged and malicious games: a quick, clear error that names the game, and no code is run."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_games import NEVER, document, problem

from sdar.environments.alfworld.engine import GameError
from sdar.environments.alfworld.game import Game
from sdar.environments.alfworld.native import NativeEngine

SECONDS = 8.0
"""Generous: a loaded machine must not fail the test. The slowest refusal takes about a second."""

GOOD = problem()
DEEP = "(and " * 100_000 + ")" * 100_000
MANY = 12_000


def load(text):
    game = Game("the-bad-game", "pick_and_place_simple", "put a mug in desk", text, "train")
    return NativeEngine().load(game)


def without(section):
    start = GOOD.index(f"({section}")
    return GOOD[:start] + GOOD[GOOD.index("\n", start) :]


def goal_over(count, conditions):
    """A problem of many mugs in one cabinet, with a goal of several of them."""
    declared = ["agent1 - agent", "l - location", "MugType - otype", "r - receptacle"]
    declared += [f"m{n} - object" for n in range(count)]
    init = ["(atLocation agent1 l)", "(receptacleAtLocation r l)"]
    init += [f"(objectType m{n} MugType)" for n in range(count)]
    return document(declared, init, conditions)


SEVERAL = "(exists (?a ?b ?c ?d - object) (and {} {} {} {} (not (= ?a ?b)) (not (= ?c ?d)) (not (= ?b ?c))))".format(
    *(f"(objectType ?{v} MugType)" for v in "abcd")
)

REFUSED = {
    "an empty file": ("", "no section ':domain'"),
    "text that is no problem": ("lorem ipsum", "no section"),
    "binary junk": ("".join(map(chr, range(256))) * 50, "no section"),
    "another domain": (GOOD.replace("(:domain alfred)", "(:domain gripper)"), "domain alfred"),
    "something before the domain": (GOOD.replace("(define", "(import os) (define"), "must begin with"),
    "no objects": (without(":objects"), "no section ':objects'"),
    "no init": (without(":init"), "no section ':init'"),
    "no goal": (without(":goal"), "no section ':goal'"),
    "a section twice": (GOOD.replace("(:goal", "(:init )\n(:goal"), "twice"),
    "an unknown section": (GOOD.replace("(:goal", "(:constraints (and))\n(:goal"), "unknown section ':constraints'"),
    "sections in another order": (
        "(define (problem x) (:domain alfred) (:init ) (:objects ) (:goal (and)))",
        "order",
    ),
    "an unknown type": (problem(objects=["x - spaceship"]), "unknown type 'spaceship'"),
    "a type that is not there": (problem(objects=["x -"]), "ends after '-'"),
    "an object without a type": (problem(objects=["x"]), "no type"),
    "nested objects": (problem(objects=["(either x y) - object"]), "must be one list"),
    "an unknown predicate": (problem(facts=["(explodes Mug_bar_1)"]), "unknown predicate 'explodes'"),
    "an empty fact": (problem(facts=["()"]), "unknown predicate ''"),
    "a fact about something undeclared": (problem(facts=["(isHot Moon)"]), "'moon' in 'ishot moon' is not declared"),
    "a fact with too many arguments": (problem(facts=["(isHot Mug_bar_1 Mug_bar_2)"]), "2 arguments"),
    "a fact about the wrong type": (problem(facts=["(opened Mug_bar_1)"]), "must be of type receptacle, got object"),
    "a nested fact": (problem(facts=["(not (isHot Mug_bar_1))"]), "must contain only facts"),
    "text among the facts": (problem(facts=["__import__"]), "must contain only facts"),
    "a function": (problem(facts=["(= (total-cost) 0)"]), "must contain only facts"),
    "init that does not close": (GOOD.replace(")\n(:goal", "\n(:goal"), "must contain only facts"),
    "two agents": (problem(objects=["agent2 - agent"], facts=["(holdsAny agent2)"]), "one agent"),
    "two places at once": (problem(facts=["(atLocation agent1 loc_bar_1)"]), "one location"),
    "a receptacle at two locations": (problem(facts=["(receptacleAtLocation Desk_bar_1 loc_bar_1)"]), "two locations"),
    "something in hand at the start": (problem(facts=["(holds agent1 Mug_bar_1)"]), "in hand"),
    "a goal that does not close": (GOOD.rstrip().rstrip(")").rstrip().rstrip(")"), "not closed"),
    "a problem that does not close": (GOOD.rstrip().rstrip(")"), "must end after ':goal'"),
    "something after the end": (GOOD + "(system rm)", "must end after ':goal'"),
    "a goal of two conditions": (problem("(isHot Mug_bar_1) (isHot Mug_bar_2)"), "exactly one condition"),
    "an empty goal": (problem("()"), "not supported"),
    "a goal with or": (problem("(or (isHot Mug_bar_1) (isHot Mug_bar_2))"), "'or' is not supported"),
    "a goal with not": (problem("(not (isHot Mug_bar_1))"), "'not' is not supported"),
    "a goal with an unknown predicate": (problem("(explodes Mug_bar_1)"), "'explodes' is not supported"),
    "a goal about an unbound variable": (problem("(isHot ?x)"), "'?x' in ':goal' is not bound"),
    "a goal about a variable of an unknown type": (problem("(exists (?x - moon) (isHot ?x))"), "unknown type 'moon'"),
    "a goal about a variable without a type": (problem("(exists (?x) (isHot ?x))"), "no type"),
    "a goal that leaves a variable out": (problem("(exists (?x - object) (isHot Mug_bar_1))"), "the variable '?x'"),
    "a goal about a variable of the wrong type": (
        problem("(exists (?x - receptacle) (isHot ?x))"),
        "must be of type object",
    ),
    "a goal about something undeclared": (problem("(isHot Moon)"), "not declared"),
    "a goal with too few arguments": (problem("(inReceptacle Mug_bar_1)"), "needs 2 arguments"),
    "a goal with an expression for a name": (problem("(isHot (and))"), "in place of a name"),
    "a goal nested deeply": (problem(DEEP), "nested deeper than 40"),
    "a goal that is long": (problem("(and " + "(isHot Mug_bar_1) " * 10_000 + ")"), "more than 2000"),
    "a goal with many variables": (
        problem(f"(exists ({' '.join(f'?x{n}' for n in range(50_000))} - object) (isHot ?x1))"),
        "more than 2000",
    ),
    "facts nested deeply": (problem(facts=["(" * 100_000]), "must contain only facts"),
    "a goal with a great many solutions": (goal_over(150, SEVERAL), "more than 20000 alternatives"),
    "a goal that is much work": (goal_over(MANY, SEVERAL), "more than 2000000 comparisons"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_problem_is_refused_by_name_and_soon(name):
    text, reason = REFUSED[name]
    began = time.process_time()
    with pytest.raises(GameError) as caught:
        load(text)
    assert time.process_time() - began < SECONDS
    assert "the-bad-game" in str(caught.value)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("character", ["(", ";", " ", "a"])
def test_100_mb_of_text_are_refused_unread(character):
    text = character * 100_000_000
    began = time.process_time()
    with pytest.raises(GameError, match=r"the-bad-game: the problem must have at most .* characters, got 100000000"):
        load(text)
    assert time.process_time() - began < 0.5


def test_the_problem_of_these_tests_is_good_before_it_is_damaged():
    assert not load(GOOD).start()[1].won


def test_comments_and_a_metric_are_read():
    text = GOOD.replace("(:init", "; (:init (nonsense\n(:init")
    text = text.rstrip().rstrip(")") + "(:metric minimize (total-cost))\n)"
    assert load(text).start()[1] == load(GOOD).start()[1]


def test_things_that_contain_each_other_do_no_harm():
    rings = [f"(inReceptacleObject {a} {b})" for a, b in (("Bowl_bar_1", "Mug_bar_1"), ("Mug_bar_1", "Bowl_bar_1"))]
    state, _ = load(problem(facts=rings)).start()
    state.step("go to countertop 1")
    state.step("take bowl 1 from countertop 1")
    assert state.step("examine bowl 1").text == "This is a normal bowl 1. In it, you see a mug 2."


def test_a_very_large_room_is_played_in_bounded_time():
    declared = [f"r{n} - receptacle" for n in range(MANY)]
    facts = [f"(receptacleAtLocation r{n} loc_bar_9)" for n in range(MANY)]
    began = time.process_time()
    state, _ = load(problem(objects=declared, facts=facts)).start()
    state.step("look")
    assert time.process_time() - began < SECONDS


def test_nothing_is_evaluated(tmp_path):
    trap = tmp_path / "trap"
    code = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    names = ["{" + code + "}", "#" + code + "#", code.replace("(", "_").replace(")", "_")]
    for name in names:
        with pytest.raises(GameError):
            load(problem(objects=[f"{name} - object", f"{name}"]))
    state, _ = load(problem(objects=["{7*7} - receptacle"], facts=["(receptacleAtLocation {7*7} loc_bar_9)"])).start()
    assert "{7*7}" in state.step("look").text
    assert not trap.exists()


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(GOOD)), st.integers(0, 60), st.text(alphabet="()?:-=; \nabc", max_size=12))
def test_damage_anywhere_is_either_harmless_or_a_game_error(position, removed, inserted):
    text = GOOD[:position] + inserted + GOOD[position + removed :]
    try:
        game = load(text)
    except GameError:
        return
    state, reply = game.start()
    for command in reply.admissible:
        state.copy().step(command)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_any_goal_is_either_understood_or_a_game_error(goal):
    with contextlib.suppress(GameError):
        load(problem(goal)).start()


def test_the_goal_of_these_tests_is_understood():
    assert load(problem(NEVER)).goal.parts
