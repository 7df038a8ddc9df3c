"""The ALFWorld environment: prompts, projection, pools, tasks and settings."""

from pathlib import Path

import pytest
from tiny_games import game, place

from sdar.environments.alfworld.environment import BANNER, COMMANDS, FORMAT, INSTRUCTIONS, ROLE, AlfworldEnvironment
from sdar.environments.alfworld.game import TASK_TYPES, Game
from sdar.environments.base import PastTurn, Projection, training_tasks
from sdar.environments.check import check_env
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError

SMALL = (12, 6, 6)


@pytest.fixture(scope="module")
def environment():
    return AlfworldEnvironment(num_tasks=SMALL)


def task_of(tiny: Game) -> Task:
    return Task(tiny.game_id, tiny.task_type, tiny.task_text, tiny.split, tiny.content_hash, tiny)


MUG_IN_DESK = task_of(game(place("Mug", "Desk"), text="put a mug in desk"))
SOLUTION = ("go to countertop 1", "take mug 2 from countertop 1", "go to desk 1", "move mug 2 to desk 1")
BROKEN = task_of(Game("broken", TASK_TYPES[0], "put a mug in desk", "(define", "train"))


# Prompts -------------------------------------------------------------------------------------------------------------


def test_the_terse_opening_is_the_room_and_the_task(environment):
    (observation,) = environment.open_pool().reset([MUG_IN_DESK])
    opening = environment.opening(MUG_IN_DESK, observation)
    assert opening.startswith("You are in the middle of a room.")
    assert opening.endswith("\n\nYour task is to: put a mug in desk.")
    assert BANNER not in opening


def test_the_full_opening_explains_commands_and_format_before_the_same_text():
    terse, full = (AlfworldEnvironment(prompt_style=style, num_tasks=SMALL) for style in ("terse", "full"))
    (observation,) = full.open_pool().reset([MUG_IN_DESK])
    assert full.opening(MUG_IN_DESK, observation) == INSTRUCTIONS + terse.opening(MUG_IN_DESK, observation)
    assert full.reply(observation) == terse.reply(observation)
    for word in ("<think>", "</think>", "<action>", "</action>", "move O to X", "inventory"):
        assert word in INSTRUCTIONS


def test_actions_are_listed_in_every_prompt_when_asked_for():
    environment = AlfworldEnvironment(list_actions=True, num_tasks=SMALL)
    observation = Observation("You see a mug 1.", ("go to desk 1", "look"), "")
    listed = "\nCommands you can give now: go to desk 1, look."
    assert environment.reply(observation) == "You see a mug 1." + listed
    assert environment.opening(MUG_IN_DESK, observation).endswith(listed)
    assert environment.reply(Observation("Done.", None, "")) == "Done."


SEEN = Observation("On the desk 1, you see a mug 1.", ("take mug 1 from desk 1", "look"), "")
PAST = [PastTurn(f"{BANNER}You are in a room.", "look"), PastTurn("You see a desk 1.", "go to desk 1")]


def test_a_window_prompt_says_role_task_steps_history_observation_commands_and_format_in_this_order():
    environment = AlfworldEnvironment(prompt_style="full", list_actions=True, num_tasks=SMALL)
    assert environment.window_prompt(MUG_IN_DESK, PAST, SEEN, 7).split("\n\n") == [
        ROLE.rstrip(),
        "Your task is to: put a mug in desk",
        "Steps taken so far: 7. The last 2, with what you saw before each:",
        "You are in a room.\n> look",
        "You see a desk 1.\n> go to desk 1",
        f"Now you see:\n{SEEN.text}\nCommands you can give now: take mug 1 from desk 1, look.",
        f"Now {FORMAT.rstrip()}",
    ]


def test_a_window_prompt_without_history_is_what_is_seen_now():
    """The observation states the task in the first turn; later, the prompt does if no past turn is shown."""
    environment = AlfworldEnvironment(prompt_style="full", list_actions=True, num_tasks=SMALL)
    (observation,) = environment.open_pool().reset([MUG_IN_DESK])
    first = environment.window_prompt(MUG_IN_DESK, [], observation, 0)
    assert first == f"{ROLE.rstrip()}\n\n{environment.reply(observation).removeprefix(BANNER)}\n\nNow {FORMAT.rstrip()}"
    assert first.count("Your task is to: put a mug in desk") == 1
    assert "help" not in first
    later = environment.window_prompt(MUG_IN_DESK, [], SEEN, 7)
    expected = [ROLE.rstrip(), "Your task is to: put a mug in desk", environment.reply(SEEN), f"Now {FORMAT.rstrip()}"]
    assert later.split("\n\n") == expected


def test_a_window_prompt_explains_the_commands_where_it_does_not_list_them_and_nothing_in_the_terse_style(environment):
    full = AlfworldEnvironment(prompt_style="full", num_tasks=SMALL)
    assert full.window_prompt(MUG_IN_DESK, PAST, SEEN, 2).endswith(COMMANDS)
    (observation,) = environment.open_pool().reset([MUG_IN_DESK])
    opening = environment.opening(MUG_IN_DESK, observation)
    assert environment.window_prompt(MUG_IN_DESK, [], observation, 0) == opening
    terse = environment.window_prompt(MUG_IN_DESK, PAST, SEEN, 2)
    assert terse.startswith("Your task is to: put a mug in desk\n\nSteps taken so far: 2. ")
    assert terse.endswith(f"Now you see:\n{SEEN.text}")


def test_help_is_not_offered_to_the_agent(environment):
    (observation,) = environment.open_pool().reset([MUG_IN_DESK])
    assert "help" not in observation.actions
    assert "look" in observation.actions


# Projection ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "action", "valid"),
    [
        ("<think>mug</think><action>go to desk 1</action>", "go to desk 1", True),
        ("<think></think>\n<action>\n Go To Desk 1 \n</action>", "go to desk 1", True),
        ("<action>look</action> <think>late</think>", "look", True),
        ("<think>a</think><action>look</action><action>inventory</action>", "look", True),
        ("<think>a</think><action>never heard of</action>", "never heard of", True),
        ("<think>a</think><action></action>", "", True),
        ("<action>look</action>", "look", False),
        ("<think>a<action>look</action>", "look", False),
        ("a</think><action>look</action>", "look", False),
        ("<think>杯</think><action>look</action>", "look", False),
        ("<think>a</think><action>看</action>", "看", False),
        # without both action tags: the last 30 characters
        ("<think>a</think><action>look", "<think>a</think><action>look"[-30:], False),
        ("I would rather like to GO TO DESK 1", "uld rather like to go to desk 1"[-30:], False),
        ("<think>a</think>action>look</action>\n", "<think>a</think>action>look</action>\n"[-30:], False),
        ("go to desk 1 ", "go to desk 1 ", False),
        ("", "", False),
        # action tags are matched in the lower-cased response, thought tags in the original one
        ("<think>a</think><Action>Look</ACTION>", "look", True),
        ("<Think>a</Think><action>look</action>", "look", False),
        # first opening and first closing tag, with any text around them
        ("</action><think>a</think><action>look</action>", "", True),
        ("<think>a</think><action>look<action>up</action></action>", "look<action>up", True),
        # Chinese characters anywhere
        ("<think>a</think><action>look</action>\u4e00", "look", False),
        ("<think>caf\u00e9 \u3042</think><action>look</action>", "look", True),
    ],
)
def test_a_response_is_projected(environment, response, action, valid):
    assert environment.project(response) == Projection(action, valid)


# Pools ---------------------------------------------------------------------------------------------------------------


def test_an_episode_pays_ten_at_the_winning_step_and_nothing_before(environment):
    pool = environment.open_pool()
    pool.reset([MUG_IN_DESK])
    outcomes = [pool.step({0: command})[0] for command in SOLUTION]
    assert [outcome.reward for outcome in outcomes] == [0.0, 0.0, 0.0, 10.0]
    assert [outcome.done for outcome in outcomes] == [False, False, False, True]
    assert outcomes[-1].success
    assert outcomes[-1].end is EndReason.SUCCESS
    with pytest.raises(ValueError, match="slot 0"):
        pool.step({0: "look"})


def test_episodes_of_one_game_do_not_disturb_one_another(environment):
    pool = environment.open_pool()
    first, second = pool.reset([MUG_IN_DESK, MUG_IN_DESK])
    assert first == second
    for command in SOLUTION:
        pool.step({0: command})
    assert pool.step({1: "inventory"})[1].observation.text == "You are not carrying anything."
    assert pool.step({1: "go to desk 1"})[1].observation.text.endswith("On the desk 1, you see a desklamp 1.")


def test_an_inadmissible_command_is_answered_and_costs_nothing(environment):
    pool = environment.open_pool()
    pool.reset([MUG_IN_DESK])
    outcome = pool.step({0: "fly to the moon"})[0]
    assert (outcome.observation.text, outcome.reward, outcome.done) == ("Nothing happens.", 0.0, False)


def test_a_game_that_cannot_be_played_ends_its_own_slot_only(environment):
    pool = environment.open_pool()
    good, bad = pool.reset([MUG_IN_DESK, BROKEN])
    assert isinstance(good, Observation)
    assert isinstance(bad, StepOutcome)
    assert bad.end is EndReason.ERROR_ENVIRONMENT
    assert "broken" in (bad.error or "")
    assert not pool.step({0: "look"})[0].done
    with pytest.raises(ValueError, match="slot 1"):
        pool.step({1: "look"})


def test_a_pool_starts_again_and_closes_twice(environment):
    pool = environment.open_pool()
    pool.reset([MUG_IN_DESK])
    pool.step({0: SOLUTION[0]})
    (again,) = pool.reset([MUG_IN_DESK])
    assert again.text.startswith(BANNER)
    pool.close()
    pool.close()


# Tasks ---------------------------------------------------------------------------------------------------------------


def test_splits_have_the_configured_numbers_of_tasks_with_distinct_names(environment):
    assert environment.splits() == ("train", "valid_seen", "valid_unseen")
    tasks = [task for split in environment.splits() for task in environment.tasks(split)]
    assert tuple(len(environment.tasks(split)) for split in environment.splits()) == SMALL
    assert len({task.task_id for task in tasks}) == len({task.content_hash for task in tasks}) == sum(SMALL)
    assert {task.task_type for task in tasks} == set(TASK_TYPES)


def test_the_same_settings_pose_the_same_tasks(environment):
    again = AlfworldEnvironment(num_tasks=SMALL)
    for split in environment.splits():
        assert list(again.tasks(split)) == list(environment.tasks(split))


def test_the_expert_wins_every_task(environment):
    pool = environment.open_pool()
    for split in environment.splits():
        tasks = environment.tasks(split)
        pool.reset(tasks)
        for slot, task in enumerate(tasks):
            outcomes = [pool.step({slot: command})[slot] for command in environment.expert(task)]
            assert outcomes[-1].success
            assert len(outcomes) <= environment.max_turns


def test_a_task_without_a_stored_solution_has_no_expert(environment):
    assert environment.expert(MUG_IN_DESK) is None


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"engine": "warp"}, "engine must be 'native' or 'textworld', got 'warp'"),
        ({"prompt_style": "loud"}, "prompt_style must be 'terse' or 'full', got 'loud'"),
        ({"max_turns": 0}, "max_turns must be a whole number >= 1, got 0"),
        ({"num_tasks": (1, 2)}, "environment.num_tasks must be a list of 3 numbers"),
        ({"num_tasks": (1, 0, 2)}, "num_tasks must be"),
        ({"data_dir": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_a_bad_setting_is_named(settings, name):
    with pytest.raises(UserError) as caught:
        AlfworldEnvironment(**settings)
    assert name in str(caught.value)


def test_an_unknown_split_is_named(environment):
    with pytest.raises(UserError, match=r"split must be one of train, valid_seen, valid_unseen, got 'test'"):
        environment.tasks("test")


def test_a_dataset_without_training_games_is_refused_for_training_only(tmp_path: Path) -> None:
    (tmp_path / "json_2.1.1" / "valid_seen").mkdir(parents=True)
    environment = AlfworldEnvironment(data_dir=tmp_path)
    assert environment.splits() == ("valid_seen",)
    with pytest.raises(UserError, match=r"must contain json_2\.1\.1/train to train, but .* has only valid_seen; set"):
        training_tasks(environment)
    assert training_tasks(environment, needed=False) == ()


def test_the_environment_keeps_the_protocol(environment):
    report = check_env(environment, unplayable=BROKEN)
    assert report.experts > 0
