"""Every command of the native engine, by hand-made example: its text, its effect, and when it is offered."""

import pytest
from tiny_games import NEVER, TWO, game, place, play, start

from sdar.environments.alfworld.native import NativeEngine


def offers(state):
    return state.reply("").admissible


def test_the_opening_lists_the_room_and_states_the_task():
    _, reply = NativeEngine().load(game(text="put a mug in desk")).start()
    assert reply.text == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
        "a cabinet 2, a cabinet 1, a countertop 1, a desk 1, a fridge 1, a microwave 1, a shelf 1, and a sinkbasin 1."
        "\n\nYour task is to: put a mug in desk."
    )
    assert not reply.won


def test_the_first_identifier_of_a_kind_has_the_highest_number():
    names = NativeEngine().load(game()).names
    assert names["Cabinet_bar_1".lower()] == "cabinet 2"
    assert names["Cabinet_bar_2".lower()] == "cabinet 1"
    assert names["Sink_bar_1_bar_SinkBasin".lower()] == "sinkbasin 1"


def test_an_identifier_without_a_number_is_named_as_the_original_does_with_a_space_at_its_end():
    state = start(objects=["Ledge - receptacle"], facts=["(receptacleAtLocation Ledge loc_bar_9)"])
    assert "You are facing the ledge ." in play(state, "look")
    assert "examine ledge " in offers(state)
    assert state.step("examine ledge ").text == "Nothing happens."


def test_admissible_commands_are_sorted_and_each_is_listed_once():
    state = start()
    for command in ("go to countertop 1", "take mug 2 from countertop 1", "go to fridge 1", "open fridge 1", "look"):
        admissible = state.step(command).admissible
        assert list(admissible) == sorted(set(admissible))


def test_the_commands_at_the_start():
    assert offers(start()) == (
        "go to cabinet 1",
        "go to cabinet 2",
        "go to countertop 1",
        "go to desk 1",
        "go to fridge 1",
        "go to microwave 1",
        "go to shelf 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
    )


@pytest.mark.parametrize(
    "command",
    [
        "",
        "dance",
        "GO TO DESK 1",
        "go to desk 2",
        "take mug 2 from countertop 1",
        "open fridge 1",
        "move",
        "look around",
    ],
)
def test_an_inadmissible_command_changes_nothing(command):
    state = start()
    before = state.reply("")
    after = state.step(command)
    assert after.text == "Nothing happens."
    assert (after.admissible, after.won) == (before.admissible, before.won)
    assert play(state, "go to countertop 1").startswith("You arrive at countertop 1.")


def test_white_space_around_a_command_is_ignored():
    assert start().step("  go to desk 1\n").text == "You arrive at desk 1. On the desk 1, you see a desklamp 1."


def test_going_to_a_closed_receptacle_shows_that_it_is_closed():
    assert play(start(), "go to fridge 1") == "You arrive at fridge 1. The fridge 1 is closed."


def test_a_receptacle_at_the_same_location_is_not_offered_as_a_goal():
    state = start()
    play(state, "go to countertop 1")
    assert "go to shelf 1" not in offers(state)
    assert {"examine countertop 1", "examine shelf 1"} <= set(offers(state))


def test_opening_and_closing():
    state = start()
    play(state, "go to fridge 1")
    assert play(state, "open fridge 1") == "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1."
    assert "open fridge 1" not in offers(state)
    assert play(state, "examine fridge 1") == "The fridge 1 is open. In it, you see a apple 1."
    assert play(state, "close fridge 1") == "You close the fridge 1."
    assert play(state, "examine fridge 1") == "The fridge 1 is closed."
    assert "take apple 1 from fridge 1" not in offers(state)


def test_an_empty_receptacle_holds_nothing():
    state = start()
    assert play(state, "go to sinkbasin 1") == "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing."
    play(state, "go to microwave 1")
    assert play(state, "open microwave 1").endswith("The microwave 1 is open. In it, you see nothing.")


def test_taking_and_moving():
    state = start()
    play(state, "go to countertop 1")
    assert play(state, "take mug 2 from countertop 1") == "You pick up the mug 2 from the countertop 1."
    assert not any(command.startswith("take ") for command in offers(state))  # one object at a time
    assert play(state, "inventory") == "You are carrying: a mug 2."
    assert "mug 2" not in play(state, "examine countertop 1")
    play(state, "go to desk 1")
    assert play(state, "move mug 2 to desk 1") == "You move the mug 2 to the desk 1."
    assert play(state, "inventory") == "You are not carrying anything."
    assert play(state, "examine desk 1") == "On the desk 1, you see a desklamp 1, and a mug 2."


def test_only_what_fits_can_be_moved_and_only_into_what_is_open():
    state = start()
    play(state, "go to countertop 1", "take knife 1 from countertop 1", "go to desk 1")
    assert not any(command.startswith("move ") for command in offers(state))
    play(state, "go to countertop 1", "move knife 1 to countertop 1", "take mug 2 from countertop 1", "go to fridge 1")
    assert "move mug 2 to fridge 1" not in offers(state)
    play(state, "open fridge 1", "move mug 2 to fridge 1")


def test_what_cannot_be_picked_up_is_not_offered():
    state = start()
    play(state, "go to desk 1")
    assert "take desklamp 1 from desk 1" not in offers(state)


def test_cleaning_heating_and_cooling_need_their_appliance_and_not_an_open_door():
    state = start()
    play(state, "go to countertop 1", "take mug 2 from countertop 1")
    assert not {"clean", "heat", "cool"} & {command.split()[0] for command in offers(state)}
    play(state, "go to sinkbasin 1")
    assert play(state, "clean mug 2 with sinkbasin 1") == "You clean the mug 2 using the sinkbasin 1."
    play(state, "go to microwave 1")
    assert play(state, "heat mug 2 with microwave 1") == "You heat the mug 2 using the microwave 1."
    assert play(state, "examine mug 2") == "This is a hot and clean mug 2."
    play(state, "go to fridge 1")
    assert play(state, "cool mug 2 with fridge 1") == "You cool the mug 2 using the fridge 1."
    assert play(state, "examine mug 2") == "This is a cool and clean mug 2."  # no longer hot


def test_what_cannot_be_treated_is_not_offered():
    state = start()
    play(state, "go to countertop 1", "take bowl 1 from countertop 1", "go to sinkbasin 1")
    assert "clean bowl 1 with sinkbasin 1" not in offers(state)


def test_a_knife_in_hand_slices_what_lies_at_the_same_place():
    state = start()
    play(state, "go to countertop 1")
    assert not any(command.startswith("slice ") for command in offers(state))
    play(state, "take knife 1 from countertop 1")
    assert play(state, "slice bread 1 with knife 1") == "You sliced the bread 1 with the knife 1."
    play(state, "move knife 1 to countertop 1", "take bread 1 from countertop 1")
    assert play(state, "examine bread 1") == "This is a sliced bread 1."


def test_slicing_reaches_into_a_closed_receptacle():
    state = start()
    play(state, "go to countertop 1", "take knife 1 from countertop 1", "go to fridge 1")
    assert play(state, "slice apple 1 with knife 1") == "You sliced the apple 1 with the knife 1."


def test_help_lists_the_commands():
    assert start().step("help").text.startswith("Available commands:\n  look: ")


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ([], "There's nothing special about mug 2."),
        (["isClean"], "This is a clean mug 2."),
        (["isHot"], "This is a hot mug 2."),
        (["isCool"], "This is a cold mug 2."),
        (["isHot", "isClean"], "This is a hot and clean mug 2."),
        (["isCool", "isClean"], "This is a cool and clean mug 2."),
        (["isSliced", "sliceable"], "This is a sliced mug 2."),
        (["isSliced", "isClean"], "This is a clean sliced mug 2."),
        (["isSliced", "isHot"], "This is a hot sliced mug 2."),
        (["isSliced", "isCool"], "This is a cool sliced mug 2."),
        (["isSliced", "isHot", "isClean"], "This is a hot and clean sliced mug 2."),
        (["isSliced", "isCool", "isClean"], "This is a cool and clean sliced mug 2."),
        (["toggleable"], "There's nothing special about mug 2."),
        (["toggleable", "isToggled"], "This mug 2 is on."),
    ],
)
def test_examining_what_is_in_hand(facts, text):
    state = start(facts=[f"({fact} Mug_bar_1)" for fact in facts])
    play(state, "go to countertop 1", "take mug 2 from countertop 1")
    assert play(state, "examine mug 2") == text


def test_examining_something_that_can_hold_things():
    state = start(facts=["(inReceptacleObject Apple_bar_1 Bowl_bar_1)", "(inReceptacleObject Bowl_bar_1 Bowl_bar_1)"])
    play(state, "go to countertop 1", "take bowl 1 from countertop 1")
    assert play(state, "examine bowl 1") == "This is a normal bowl 1. In it, you see a apple 1, and a bowl 1."


def test_winning_is_told_at_the_step_that_wins_and_no_longer_when_it_is_undone():
    state = start(place("Mug", "Desk"))
    play(state, "go to countertop 1", "take mug 2 from countertop 1", "go to desk 1")
    assert state.step("move mug 2 to desk 1").won
    assert state.step("dance").won
    assert not state.step("take mug 2 from desk 1").won


def test_a_goal_of_two_needs_two_different_objects_in_the_same_receptacle():
    state = start(TWO.format(obj="Mug", target="Cabinet"))
    play(state, "go to cabinet 2", "open cabinet 2", "go to countertop 1", "take mug 2 from countertop 1")
    play(state, "go to cabinet 2")
    assert not state.step("move mug 2 to cabinet 2").won  # mug 1 is in the other cabinet
    play(state, "take mug 2 from cabinet 2", "go to cabinet 1", "open cabinet 1")
    assert state.step("move mug 2 to cabinet 1").won


# Quirks of the original that agents see ------------------------------------------------------------------------------


def test_looking_in_the_middle_of_the_room_lists_nothing():
    expected = "You are in the middle of a room. Looking quickly around you, you see nothing."
    assert play(start(), "look") == expected


def test_looking_names_every_receptacle_of_a_location():
    state = start()
    play(state, "go to shelf 1")
    assert play(state, "look") == "You are facing the countertop 1, and shelf 1. Next to it, you see nothing."


def test_an_opening_in_front_of_a_receptacle_is_a_look():
    _, reply = NativeEngine().load(game(start="loc_bar_6")).start()
    assert "\n\nYou are facing the desk 1. Next to it, you see nothing.\n\n" in reply.text


def test_an_object_moved_to_the_receptacle_beside_is_seen_next_to_the_first():
    state = start()
    play(state, "go to countertop 1", "take mug 2 from countertop 1", "move mug 2 to shelf 1")
    assert play(state, "look") == "You are facing the countertop 1, and shelf 1. Next to it, you see a mug 2."
    play(state, "take mug 2 from shelf 1", "move mug 2 to countertop 1", "take mug 2 from countertop 1")
    assert play(state, "look").endswith("you see nothing.")


def test_an_object_in_two_receptacles_stays_in_the_other_one_when_taken():
    state = start(place("Pan", "Shelf", "(coolable ?o) (isCool ?o) "))
    play(state, "go to countertop 1", "take pan 1 from countertop 1")
    assert play(state, "examine shelf 1") == "On the shelf 1, you see a pan 1."
    play(state, "go to fridge 1")
    assert state.step("cool pan 1 with fridge 1").won  # in hand, and still on the shelf for the goal


def test_only_the_object_in_hand_is_offered_for_examination():
    state = start()
    play(state, "go to countertop 1")
    assert [command for command in offers(state) if command.startswith("examine ")] == [
        "examine countertop 1",
        "examine shelf 1",
    ]


def test_a_lamp_is_used_wherever_it_lies_and_stays_on():
    state = start()
    play(state, "go to desk 1")
    assert [play(state, "use desklamp 1") for _ in range(3)] == ["You turn on the desklamp 1."] * 3


def test_a_lamp_in_a_closed_receptacle_can_be_used_and_one_in_hand_cannot():
    state = start()
    play(state, "go to cabinet 2")
    assert play(state, "use floorlamp 1") == "You turn on the floorlamp 1."
    play(state, "open cabinet 2", "take floorlamp 1 from cabinet 2")
    assert "use floorlamp 1" not in offers(state)
    assert play(state, "examine floorlamp 1") == "This floorlamp 1 is on."


def test_the_household_of_these_tests_can_be_won_only_on_purpose():
    assert not start(NEVER).won
