"""Gymnasium's environments as ours: tasks are seeds, texts and names are actions, and no error leaves its episode."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_gymnasium import FakeGymnasium, as_file, hunt

from sdar.config.plugins import allowing
from sdar.environments import check_env
from sdar.environments.adapters.gymnasium import GymnasiumEnvironment
from sdar.environments.base import PastTurn
from sdar.episode import EndReason, Observation, StepOutcome
from sdar.errors import UserError
from toys.checks import checked
from toys.installed import ROOT, run
from toys.training import toy_datamodule, toy_module, toy_policy, train
from toys.waiting import PATIENCE_S

NAMES = ["one", "two", "three"]


@pytest.fixture(params=["fake", "real"])
def gym(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gymnasium in which the game of numbers is registered."""
    if request.param == "real":
        module = pytest.importorskip("gymnasium")
        monkeypatch.setattr(module.envs.registration, "registry", dict(module.registry))
        monkeypatch.setattr(module, "registry", module.envs.registration.registry)
    else:
        module = FakeGymnasium()
        monkeypatch.setitem(sys.modules, "gymnasium", module)
    module.game = hunt(module)
    module.register(id="Hunt-v0", entry_point=module.game)
    return module


def hunting(**settings: Any) -> GymnasiumEnvironment:
    kwargs = {name: settings.pop(name) for name in ("fault", "shown", "said", "space") if name in settings}
    return GymnasiumEnvironment("Hunt-v0", kwargs=kwargs, **({"num_tasks": [6, 6]} | settings))


def played(environment: GymnasiumEnvironment, *actions: str, task: int = 0) -> list[Any]:
    """The start of a training task and its outcomes."""
    pool = environment.open_pool()
    walk: list[Any] = pool.reset([environment.tasks("train")[task]])
    walk += [pool.step({0: action})[0] for action in actions]
    pool.close()
    return walk


@pytest.mark.parametrize(
    "settings",
    [
        {"actions": NAMES},
        {"space": "text"},
        {"space": "text", "action_format": "whole"},
        {"shown": "mapping"},
        {"shown": "ansi", "observation": "render"},
        {"fault": "step"},
        {"fault": "nan"},
    ],
    ids=str,
)
def test_it_keeps_to_the_protocol_and_closes_what_it_made(gym: Any, settings: dict[str, Any]) -> None:
    checked(lambda: check_env(hunting(**settings)).tasks == 8, fails="fault" in settings)
    assert gym.game.alive == 0


def test_splits_are_disjoint_seeds_and_the_content_covers_id_and_arguments(gym: Any) -> None:
    train, valid = hunting().tasks("train"), hunting().tasks("valid")
    assert {task.payload for task in train}.isdisjoint(task.payload for task in valid)
    assert train[0].content_hash != hunting(space="text").tasks("train")[0].content_hash
    assert train == hunting(num_tasks=[9, 2]).tasks("train")[:6]
    with pytest.raises(UserError, match="split must be one of train, valid, got 'test'"):
        hunting().tasks("test")


def test_names_are_actions_and_what_is_none_never_reaches_the_environment(gym: Any) -> None:
    start, refused, lower, right = played(hunting(actions=NAMES), "four", " Three ", "one")
    assert start == Observation("Round 0.", tuple(NAMES), "Round 0.")
    assert refused.observation == Observation(
        "'four' is not an action. Actions: one, two, three.", tuple(NAMES), "Round 0.", refused=True
    )
    assert (refused.reward, refused.done) == (0.0, False)
    assert (lower.observation.text, lower.reward, lower.done) == ("lower", -0.5, False)
    assert (right.reward, right.success, right.end) == (1.0, True, EndReason.SUCCESS)


def test_numbers_are_the_names_where_there_are_none(gym: Any) -> None:
    start, right = played(hunting(), "1")
    assert start.actions == ("1", "2", "3")
    assert right.success
    environment = hunting()
    assert environment.opening(environment.tasks("train")[0], start).endswith("Actions: 1, 2, 3.")


@pytest.mark.parametrize("past", [0, 2])
def test_every_window_prompt_lists_the_actions_once_and_a_reply_does_not(gym: Any, past: int) -> None:
    for names, listed in ((None, "Actions: 1, 2, 3."), (NAMES, "Actions: one, two, three.")):
        environment = hunting(actions=names)
        task = environment.tasks("train")[0]
        start, lower = played(environment, "three" if names else "3")
        turns = [PastTurn("Round 0.", "3")] * past
        later = environment.window_prompt(task, turns, lower.observation, 2)
        assert environment.window_prompt(task, [], start, 0) == environment.opening(task, start)
        for prompt in (environment.opening(task, start), later):
            assert prompt.count(listed) == 1
        assert environment.reply(lower.observation) == "lower"
    for silent in (hunting(list_actions=False), hunting(prompt_style="terse")):
        assert "Actions" not in silent.window_prompt(task, turns, lower.observation, 2)


def test_a_text_outside_the_space_is_refused(gym: Any) -> None:
    start, refused, right = played(hunting(space="text"), "A", "a")
    assert start.actions is None
    assert refused.observation.refused
    assert right.success


@pytest.mark.parametrize(
    ("settings", "actions", "end"),
    [
        ({}, ["3", "1"], EndReason.SUCCESS),
        ({"success_threshold": 1.5}, ["1"], EndReason.FAILURE),
        ({"said": False}, ["1"], EndReason.FAILURE),
        ({"said": False, "success_key": "other"}, ["1"], EndReason.SUCCESS),
        ({}, ["3", "3", "3"], EndReason.TURN_LIMIT),
        ({"said": True}, ["3", "3", "3"], EndReason.SUCCESS),
    ],
)
def test_what_solves_a_task(gym: Any, settings: dict[str, Any], actions: list[str], end: EndReason) -> None:
    *_, last = played(hunting(**settings), *actions)
    assert (last.done, last.end, last.success) == (True, end, end is EndReason.SUCCESS)


def test_rewards_are_scaled_and_the_return_of_a_solved_task_with_them(gym: Any) -> None:
    environment = hunting(reward_scale=10)
    _, wrong, right = played(environment, "2", "1")
    assert (wrong.reward, right.reward, environment.solved_return) == (-5.0, 10.0, 10)


@pytest.mark.parametrize("fault", ["reset", "step", "nan", "exit"])
def test_an_error_ends_its_own_episode_and_says_why(gym: Any, fault: str) -> None:
    environment = hunting(fault=fault)
    pool = environment.open_pool()
    tasks = environment.tasks("train")[:2]  # the fault strikes at even seeds
    starts = pool.reset(tasks)
    running = [slot for slot, start in enumerate(starts) if isinstance(start, Observation)]
    outcomes = pool.step(dict.fromkeys(running, "2"))
    ends = {slot: start for slot, start in enumerate(starts) if isinstance(start, StepOutcome)} | outcomes
    assert (ends[0].end, ends[0].reward, ends[0].done) == (EndReason.ERROR_ENVIRONMENT, 0.0, True)
    told = {"nan": "a reward must be a number", "exit": "SystemExit: 3"}.get(fault, f"{fault} is broken for good")
    assert told in str(ends[0].error)
    if fault in ("reset", "step"):
        assert ends[1].success
    with pytest.raises(ValueError, match="slot 0 is not running"):
        pool.step({0: "2"})
    pool.close()
    assert gym.game.alive == 0


def test_the_prompt_has_rules_task_and_observation(gym: Any) -> None:
    environment = hunting(actions=NAMES, instructions="Find the number.")
    (task, *_), (start,) = environment.tasks("train"), played(environment)
    assert environment.opening(task, start).split("\n\n") == [
        "In every turn, give exactly one action between <action> and </action>.",
        "Actions: one, two, three.",
        "Find the number.",
        "Round 0.",
    ]
    terse = hunting(actions=NAMES, prompt_style="terse")
    assert terse.opening(terse.tasks("train")[0], start) == "Play Hunt-v0.\n\nRound 0."
    later = environment.window_prompt(task, [], Observation("lower", None, ""), 2)
    assert later.startswith(environment.rules(task))
    assert later.endswith("Find the number.\n\nlower")


def test_the_text_between_the_tags_is_the_action_in_its_own_case() -> None:
    environment = hunting()
    assert environment.project("I say <action> Go On </action><action>no</action>").action == "Go On"
    assert (environment.project("one").action, environment.project("one").valid) == ("", False)
    whole = hunting(action_format="whole").project("one")
    assert (whole.action, whole.valid) == ("one", True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"space": "box"}, "its actions must be Text or Discrete, got"),
        ({"actions": ["one"]}, "environment.actions must be a name for each action of"),
        ({"space": "text", "actions": NAMES}, "environment.actions must be a name for each action of"),
        ({"shown": "number"}, "environment.observation=render shows what the environment prints"),
        ({"fault": "reset"}, "environment=gymnasium cannot be played: RuntimeError: reset is broken"),
    ],
)
def test_what_cannot_be_played_is_told_before_a_run(gym: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        hunting(**settings).check_ready()
    assert told in str(error.value)


def test_names_of_actions_must_differ() -> None:
    with pytest.raises(UserError, match=r"environment\.actions must be different names, got 'one' more than once"):
        hunting(actions=["one", "two", "one"])


def test_what_can_be_played_is_ready(gym: Any) -> None:
    hunting().check_ready()
    assert gym.game.alive == 0


def test_an_id_that_nothing_has_is_told(gym: Any) -> None:
    with pytest.raises(UserError, match=r"environment\.id=Nothing-v3 cannot be made: .*Nothing"):
        GymnasiumEnvironment("Nothing-v3").check_ready()


def test_two_numbers_of_tasks_are_needed() -> None:
    with pytest.raises(UserError, match=r"num_tasks must have two numbers, for train and valid, got \[4\]"):
        GymnasiumEnvironment("Hunt-v0", num_tasks=[4])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"pip install 'sdar\[gymnasium\]'"):
        hunting().check_ready()


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with the module ``rooms``."""
    (tmp_path / "rooms.py").write_text(as_file())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rooms", raising=False)
    return tmp_path


def test_no_module_is_imported_that_the_user_did_not_allow(rooms: Path) -> None:
    pytest.importorskip("gymnasium")
    environment = GymnasiumEnvironment("rooms:Drawers-v0", num_tasks=[2, 2])
    with pytest.raises(UserError, match="whose code would run; if you trust it, add --allow rooms"):
        environment.check_ready()
    assert "rooms" not in sys.modules
    with allowing(["rooms"]):
        assert check_env(environment, tasks_per_split=1).tasks == 2


def test_an_entry_point_of_a_package_that_is_not_allowed_is_refused(rooms: Path) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register("Elsewhere-v0", entry_point="rooms:Drawers")
    with pytest.raises(UserError, match="add --allow rooms"):
        GymnasiumEnvironment("Elsewhere-v0").check_ready()


def start_of(environment: GymnasiumEnvironment, answers: Any) -> None:
    answers.put(played(environment, "2", "3"))


@pytest.mark.e2e
def test_it_plays_the_same_in_a_spawned_process() -> None:
    pytest.importorskip("gymnasium")
    lake = {"actions": ["left", "down", "right", "up"], "observation": "render", "num_tasks": [3, 3]}
    environment = GymnasiumEnvironment("FrozenLake-v1", **lake)
    assert pickle.loads(pickle.dumps(environment)).tasks("valid") == environment.tasks("valid")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=start_of, args=(environment, answers))
    process.start()
    answer = answers.get(timeout=PATIENCE_S)  # it imports everything anew
    assert answer == played(environment, "2", "3")
    process.join()


@pytest.mark.e2e
def test_a_real_game_of_gymnasium_keeps_to_the_protocol() -> None:
    pytest.importorskip("gymnasium")
    names = ["left", "down", "right", "up"]
    lake = GymnasiumEnvironment("FrozenLake-v1", observation="render", actions=names, num_tasks=[4, 4])
    report = check_env(lake)
    assert report.tasks == 8
    way = ["down", "down", "right", "right", "down", "right"]
    still = GymnasiumEnvironment("FrozenLake-v1", kwargs={"is_slippery": False}, observation="render", actions=names)
    assert played(still, *way)[-1].end is EndReason.SUCCESS


@pytest.mark.e2e
def test_two_iterations_train_on_it(gym: Any) -> None:
    policy = toy_policy()
    environment = hunting(space="text", action_format="whole", prompt_style="terse", instructions="go", max_turns=2)
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None)
    curve = train(module, toy_datamodule(policy, environment=environment, tasks=3), 2).curve()
    assert len(curve) == 2
    assert all(figures["rollout/end/error_environment"] == 0 for figures in curve.values())


@pytest.mark.e2e
def test_the_tiny_model_of_alfworld_trains_on_a_game_of_drawers(rooms: Path) -> None:
    pytest.importorskip("gymnasium")
    settings = "environment.kwargs={count:3} environment.num_tasks=[8,4] environment.prompt_style=terse"
    command = (
        "sdar train --allow rooms environment=gymnasium environment.id=rooms:Drawers-v0 model.path=alfworld "
        f"skills=alfworld algorithm=grpo teacher=none experiment=smoke evaluation.panel_size=4 {settings}"
    )
    run(command, rooms, path=f"{ROOT / 'src'}:{rooms}")
    (results,) = rooms.glob("logs/**/results.json")
    record = json.loads(results.read_text())
    assert record["training"]["iterations"] == 2
    assert all(row["errors"] == 0 for row in record["results"])
