"""Generated households: reproducible, solvable, of the configured size, and disjoint between splits."""

import pytest

from sdar.environments.alfworld import world
from sdar.environments.alfworld.game import TASK_TYPES
from sdar.environments.alfworld.generator import SPLITS, GeneratorSettings, HouseholdGenerator
from sdar.environments.alfworld.native import NativeEngine
from sdar.errors import UserError

COUNT = 120
LARGEST = GeneratorSettings(receptacles=(12, 33), distractors=(20, 36))


@pytest.fixture(scope="module")
def games():
    generator = HouseholdGenerator(GeneratorSettings())
    return {split: [generator.game(split, index) for index in range(COUNT)] for split in SPLITS}


def everything(games):
    return [game for split in SPLITS for game in games[split]]


def loaded(game):
    return NativeEngine().load(game)


def kind(types, name):
    (only,) = types[name]
    return only.removesuffix("type")


def objects_with_places(native):
    """(object type, receptacle, receptacle type) of everything at the start."""
    return [
        (kind(native.object_types, item), receptacle, kind(native.receptacle_types, receptacle))
        for receptacle, contents in native.initial_contents.items()
        for item in contents
    ]


def household(game):
    """The content of a game without its identifiers: rooms, objects and the task."""
    native = loaded(game)
    things = sorted((what, native.names[where]) for what, where, _ in objects_with_places(native))
    return game.task_text, tuple(native.names[name] for name in native.receptacles), tuple(things)


def room(native):
    kinds = {kind(native.receptacle_types, name) for name in native.receptacles}
    markers = {"kitchen": "fridge", "bathroom": "toilet", "bedroom": "bed"}
    return next((name for name, marker in markers.items() if marker in kinds), "livingroom")


def test_a_game_depends_on_settings_split_and_index_only(games):
    again = HouseholdGenerator(GeneratorSettings())
    for split, index in (("valid_unseen", 7), ("train", 119), ("valid_seen", 0), ("train", 3)):
        assert again.game(split, index) == games[split][index]


def test_another_seed_gives_other_games(games):
    other = HouseholdGenerator(GeneratorSettings(seed=1))
    ours = {household(game) for game in games["train"]}
    assert not any(household(other.game("train", index)) in ours for index in range(12))


def test_all_games_have_different_names_and_contents(games):
    for identity in ("game_id", "content_hash"):
        assert len({getattr(game, identity) for game in everything(games)}) == 3 * COUNT


def test_the_splits_share_no_household_even_under_other_names(games):
    seen = {split: {household(game) for game in games[split]} for split in SPLITS}
    assert not seen["train"] & seen["valid_seen"]
    assert not (seen["train"] | seen["valid_seen"]) & seen["valid_unseen"]


def test_unseen_rooms_have_furniture_no_training_room_has(games):
    def furniture(split):
        return {tuple(sorted(s.receptacles)) for s in (s for r in generator.scenes(split).values() for s in r)}

    generator = HouseholdGenerator(GeneratorSettings())
    assert furniture("train") == furniture("valid_seen")
    assert not furniture("train") & furniture("valid_unseen")


def test_task_types_take_turns(games):
    for start in (0, 31):
        assert {game.task_type for game in games["train"][start : start + 6]} == set(TASK_TYPES)


def test_every_walkthrough_wins_at_its_last_command_and_not_before(games):
    for game in everything(games):
        state, reply = loaded(game).start()
        assert not reply.won
        assert game.walkthrough
        won = [state.step(command).won for command in game.walkthrough]
        assert won == [False] * (len(won) - 1) + [True]


def test_a_default_household_has_at_least_eight_receptacles_and_six_distractors(games):
    for game in everything(games):
        native = loaded(game)
        wanted = 2 if game.task_type == "pick_two_obj_and_place" else 1
        lamps = sum(kind(native.object_types, name) == "desklamp" for name in native.object_types)
        assert 8 <= len(native.receptacles) <= 11
        assert 6 <= len(native.object_types) - wanted - lamps <= 9


def test_two_wanted_objects_are_two_different_things(games):
    two = [game for game in everything(games) if game.task_type == "pick_two_obj_and_place"]
    assert len(two) == 3 * COUNT / 6
    for game in two:
        taken = [command for command in game.walkthrough if command.startswith("take ")]
        assert len({command.split(" from ")[0] for command in taken}) == 2


def test_the_largest_households_are_as_large_as_the_datasets():
    generator = HouseholdGenerator(LARGEST)
    for index in range(24):
        game = generator.game("valid_unseen", index)
        native = loaded(game)
        assert 12 <= len(native.receptacles) <= 33
        assert len(native.object_types) >= 20
        state, _ = native.start()
        assert [state.step(command).won for command in game.walkthrough][-1]


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_objects_lie_in_usual_places_as_often_as_is_set(fraction):
    generator = HouseholdGenerator(GeneratorSettings(usual_place_fraction=fraction))
    usual, expected, total = 0, 0.0, 0
    for index in range(150):
        native = loaded(generator.game("train", index))
        places = {name.lower(): [place.lower() for place in spots] for name, spots in places_in(room(native)).items()}
        fits = {name.lower(): [place.lower() for place in spots] for name, spots in world.FITS.items()}
        present = [kind(native.receptacle_types, name) for name in native.receptacles]
        for what, _, where in objects_with_places(native):
            there = [place for place in present if place in places.get(what, ())]
            if there:
                usual += where in places[what]
                by_accident = len(there) / sum(place in fits[what] for place in present)
                expected += fraction + (1 - fraction) * by_accident
                total += 1
    assert total > 800
    # The target object never starts at its destination, which moves the mean a little.
    assert usual / total == pytest.approx(expected / total, abs=0.05)


def places_in(name):
    return world.USUAL_PLACES[name]


def test_everything_lies_where_it_fits(games):
    fits = {name.lower(): {place.lower() for place in spots} for name, spots in world.FITS.items()}
    for game in everything(games)[::5]:
        assert all(where in fits[what] for what, _, where in objects_with_places(loaded(game)))


def test_the_tables_of_the_world_agree_with_each_other():
    for name, table in world.USUAL_PLACES.items():
        for what, spots in table.items():
            assert set(spots) <= set(world.FITS[what]), what
            assert set(spots) <= set(world.LAYOUTS[name]), what
    assert set(world.FITS) >= world.HEATABLE | world.COOLABLE | world.CLEANABLE | world.SLICEABLE


@pytest.mark.parametrize(
    "settings",
    [
        {"receptacles": (7, 9)},
        {"receptacles": (12, 8)},
        {"receptacles": (8, 34)},
        {"receptacles": (8, 9, 10)},
        {"receptacles": (8,)},
        {"distractors": (-1, 3)},
        {"distractors": (4, 3)},
        {"distractors": (0, 10_000)},
        {"usual_place_fraction": -0.1},
        {"usual_place_fraction": 1.5},
        {"usual_place_fraction": float("nan")},
        {"scenes_seen": 0},
        {"scenes_unseen": 0},
    ],
)
def test_a_bad_setting_is_named(settings):
    (name,) = settings
    with pytest.raises(UserError, match=rf"(GeneratorSettings|environment\.generator)\.{name} must be .*, got "):
        GeneratorSettings(**settings)


def test_rooms_that_leave_no_choice_are_refused():
    with pytest.raises(UserError, match=r"environment\.generator\.receptacles=\[33, 33\] leaves no bedroom"):
        HouseholdGenerator(GeneratorSettings(receptacles=(33, 33)))
