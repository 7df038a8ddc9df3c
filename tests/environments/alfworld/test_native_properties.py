"""Properties of every game and every sequence of commands."""

from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine

CHOICES = st.lists(st.integers(0, 10_000), max_size=25)
GAMES = st.integers(0, 11)


@lru_cache
def loaded(index):
    return NativeEngine().load(
        HouseholdGenerator(GeneratorSettings(scenes_seen=2, scenes_unseen=1)).game("train", index)
    )


def walk(state, reply, choices):
    """Replies to commands picked by number among the admissible ones, with every eleventh malformed."""
    replies = [reply]
    for choice in choices:
        command = "open sesame" if choice % 11 == 0 else reply.admissible[choice % len(reply.admissible)]
        reply = state.step(command)
        replies.append(reply)
    return replies


@settings(deadline=None, max_examples=60)
@given(GAMES, CHOICES, CHOICES, CHOICES)
def test_a_copied_state_evolves_independently(index, before, one, other):
    state, reply = loaded(index).start()
    reply = walk(state, reply, before)[-1]
    twin = state.copy()
    expected = walk(state.copy(), reply, other)
    walk(state, reply, one)
    assert walk(twin, reply, other) == expected


@settings(deadline=None, max_examples=40)
@given(GAMES, CHOICES)
def test_the_same_commands_give_the_same_transcript(index, choices):
    game = loaded(index)
    first = walk(*game.start(), choices)
    assert walk(*game.start(), choices) == first


@settings(deadline=None, max_examples=60)
@given(GAMES, CHOICES)
def test_an_object_is_in_one_place_and_at_most_one_is_in_hand(index, choices):
    game = loaded(index)
    state, reply = game.start()
    for choice in choices:
        reply = state.step(reply.admissible[choice % len(reply.admissible)])
        places = [item for contents in state.contents.values() for item in contents]
        places += [] if state.held is None else [state.held]
        assert sorted(places) == sorted(game.object_types)
        assert state.holds_fact(("holdsany", game.agent)) == (state.held is not None)
        located = [item for items in state.objects_at.values() for item in items]
        assert sorted(located) == sorted(set(places) - {state.held})


@settings(deadline=None, max_examples=40)
@given(GAMES, CHOICES)
def test_every_admissible_command_does_something_and_no_other_does(index, choices):
    state, reply = loaded(index).start()
    reply = walk(state, reply, choices)[-1]
    for command in reply.admissible:
        assert state.copy().step(command).text != "Nothing happens."
        assert state.copy().step(f"{command} twice").text == "Nothing happens."
