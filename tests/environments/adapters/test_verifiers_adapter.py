"""Environments of verifiers: it plays its own rollouts, and the policy is the model that it asks."""

from __future__ import annotations

import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_verifiers import RIDDLES, Scripted, fake_verifiers

from sdar.config.plugins import allowing
from sdar.environments import check_env
from sdar.environments.adapters.messages import text_of
from sdar.environments.adapters.verifiers import VerifiersEnvironment
from sdar.environments.tools import Call, calls_in
from sdar.episode import EndReason, Observation, Preface, StepOutcome, Tool
from sdar.errors import UserError
from toys.checks import checked
from toys.training import toy_datamodule, toy_module, toy_policy, train

CALL = '<tool_call>{"name": "double", "arguments": {"number": 4}}</tool_call>'


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripted environments that were loaded, by a fake of verifiers."""
    made: list[Scripted] = []
    for name, module in fake_verifiers(made).items():
        monkeypatch.setitem(sys.modules, name, module)
    with allowing(["sys"]):  # stands for an environment's module; nothing of it is called
        yield made


def scripted(**settings: Any) -> VerifiersEnvironment:
    names = ("fault", "evaluated", "rows", "tools")
    kwargs = {name: settings.pop(name) for name in names if name in settings}
    return VerifiersEnvironment("sys", kwargs=kwargs, **({"max_turns": 3} | settings))


def played(environment: VerifiersEnvironment, *responses: str, task: int = 0) -> list[Any]:
    """The start of a training task and its outcomes."""
    pool = environment.open_pool()
    walk: list[Any] = pool.reset([environment.tasks("train")[task]])
    walk += [pool.step({0: response})[0] for response in responses]
    pool.close()
    return walk


@pytest.mark.parametrize("settings", [{}, {"tools": True}, {"fault": "raise"}, {"evaluated": True}], ids=str)
def test_it_keeps_to_the_protocol_and_cleans_up(made: list[Scripted], settings: dict[str, Any]) -> None:
    checked(lambda: check_env(scripted(**settings), tasks_per_split=2).steps > 0, fails="fault" in settings)
    (loaded,) = made
    assert loaded.cleaned > 0


def test_a_rollout_is_given_the_responses_and_its_rubrics_reward(made: list[Scripted]) -> None:
    environment = scripted(reward_scale=10)
    start, wrong, right = played(environment, "1", "0")
    assert (start.text, start.anchor) == ("", "Guess 0.")
    assert (wrong.observation.text, wrong.reward, wrong.done) == ("Wrong.", 0.0, False)
    assert (right.reward, right.success, right.end, right.scores) == (10.0, True, EndReason.SUCCESS, {"reward": 1.0})
    *_, last = played(environment, "1", "1", "1")
    assert (last.end, last.reward, last.done) == (EndReason.TURN_LIMIT, 0.0, True)


def test_episodes_of_a_pool_are_played_side_by_side(made: list[Scripted]) -> None:
    environment = scripted()
    pool = environment.open_pool()
    pool.reset(environment.tasks("train")[:3])
    outcomes = pool.step({2: "2", 0: "1"})
    assert {slot: outcome.success for slot, outcome in outcomes.items()} == {2: True, 0: False}
    assert pool.step({0: "0", 1: "1"})[1].success
    pool.close()
    assert made[0].cleaned == 3


def test_system_message_and_tools_come_before_the_prompt(made: list[Scripted]) -> None:
    environment = scripted(tools=True)
    (task, *_) = environment.tasks("train")
    assert environment.preface(task) == Preface("Be brief."), "tools are known when the episode has started"
    start, doubled, wrong = played(environment, f"<think>so</think>{CALL}", "7")
    assert environment.preface(task) == Preface("Be brief.", (Tool("double", "Doubles a number."),))
    assert environment.opening(task, start) == "Guess 0."
    assert (doubled.observation.text, doubled.observation.results) == ("<tool_response>\n8\n</tool_response>", ("8",))
    assert (wrong.observation.text, wrong.observation.results) == ("Wrong.", ())
    terse = scripted(tools=True, prompt_style="terse")
    start = played(terse)[0]
    assert terse.preface(terse.tasks("train")[0]) == Preface("Be brief.")
    assert terse.opening(terse.tasks("train")[0], start) == "Guess 0."


@pytest.mark.parametrize(
    ("fault", "end", "told"),
    [
        ("raise", EndReason.ERROR_ENVIRONMENT, "KeyError: 'broken'"),
        ("exit", EndReason.ERROR_ENVIRONMENT, "SystemExit: 3"),
        ("ToolError", EndReason.ERROR_ENVIRONMENT, "ToolError: gone"),
        ("SandboxError", EndReason.ERROR_TOOL, "SandboxError: gone"),
        ("late", EndReason.ERROR_ENVIRONMENT, "time limit"),
        ("picture", EndReason.ERROR_ENVIRONMENT, "a message must be text"),
        ("at once", EndReason.ERROR_ENVIRONMENT, "RuntimeError: no start"),
    ],
)
def test_an_error_ends_its_own_episode_without_a_reward(
    made: list[Scripted], fault: str, end: EndReason, told: str
) -> None:
    environment = scripted(fault=fault)
    pool = environment.open_pool()
    starts = pool.reset(environment.tasks("train")[:2])  # the fault strikes in rows of even number
    running = [slot for slot, start in enumerate(starts) if isinstance(start, Observation)]
    outcomes = pool.step(dict.fromkeys(running, "1"))
    struck = starts[0] if isinstance(starts[0], StepOutcome) else outcomes[0]
    assert (struck.end, struck.reward, struck.done, struck.scores) == (end, 0.0, True, {})
    assert told in str(struck.error)
    assert outcomes[1].success
    pool.close()
    assert made[0].cleaned == 2


def test_without_rows_for_evaluation_the_last_tenth_is_kept_for_it(made: list[Scripted]) -> None:
    environment = scripted(rows=30)
    assert [len(environment.tasks(split)) for split in ("train", "valid")] == [27, 3]
    assert environment.tasks("valid")[0].description.endswith("Guess 27.")
    assert [len(scripted(rows=30, num_tasks=[5, 2]).tasks(split)) for split in ("train", "valid")] == [5, 2]


def test_a_row_that_is_evaluated_is_not_trained_on(made: list[Scripted]) -> None:
    environment = scripted(evaluated=True)
    train, valid = environment.tasks("train"), environment.tasks("valid")
    assert (len(train), len(valid)) == (10, 4)
    assert {task.content_hash for task in train}.isdisjoint(task.content_hash for task in valid)


def test_an_environment_for_evaluation_alone_has_one_split(made: list[Scripted]) -> None:
    environment = scripted(rows=0, evaluated=True)
    environment.check_ready()
    assert environment.splits() == ("valid",)
    with pytest.raises(UserError, match=r"environment\.id=sys has no data set to train on; set train=false"):
        environment.training_split()
    with pytest.raises(UserError, match=r"environment\.id=sys has no data set$"):
        scripted(rows=0).check_ready()


def test_loading_leaves_the_signals_of_a_run_alone(made: list[Scripted]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    scripted().tasks("train")
    assert made
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_can_be_handed_to_another_process(made: list[Scripted]) -> None:
    environment = scripted()
    tasks = environment.tasks("train")
    other = pickle.loads(pickle.dumps(environment))
    assert other.tasks("train") == pickle.loads(pickle.dumps(tasks))
    assert len(made) == 2


def test_group_rewards_are_refused(made: list[Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "requires_group_rollouts", True)
    with pytest.raises(UserError, match="its rubric compares rollouts of a group"):
        scripted().check_ready()


def test_a_module_that_cannot_load_is_told(made: list[Scripted]) -> None:
    with pytest.raises(UserError, match=r"environment\.id=sys cannot be loaded: TypeError: .*nonsense"):
        VerifiersEnvironment("sys", kwargs={"nonsense": 1}).check_ready()


def test_a_module_that_is_not_allowed_is_never_loaded(made: list[Scripted]) -> None:
    with pytest.raises(UserError, match="if you trust it, add --allow word_game"):
        VerifiersEnvironment("someone/word-game").check_ready()
    assert made == []


def test_the_version_without_these_classes_is_named(made: list[Scripted]) -> None:
    del sys.modules["verifiers"].load_environment  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"needs verifiers before 0\.4, got 0\.3\.fake"):
        scripted().check_ready()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(UserError, match=r"pip install 'sdar\[verifiers\]'"):
        scripted().check_ready()


@pytest.mark.parametrize(
    ("response", "calls", "valid"),
    [
        (CALL, [Call("double", {"number": 4})], True),
        (f"{CALL} and {CALL}", [Call("double", {"number": 4})] * 2, True),
        ("no call", [], True),
        ('<tool_call>{"name": "look"}</tool_call>', [Call("look", {})], True),
        ("<tool_call>{</tool_call>", [], False),
        ('<tool_call>{"name": 3}</tool_call>', [], False),
        ('<tool_call>{"name": "a", "arguments": []}</tool_call>', [], False),
        (f"{CALL}<tool_call>", [Call("double", {"number": 4})], False),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", [], False),
    ],
)
def test_calls_are_read_and_what_is_none_is_not_valid(response: str, calls: list[Call], valid: bool) -> None:
    assert calls_in(response) == (calls, valid)
    assert scripted().project(response).valid is valid


def test_examples_in_a_prompt_say_who_speaks() -> None:
    roles = ("system", "user", "assistant", "user")
    messages = [
        {"role": role, "content": [{"type": "text", "text": word}]} for role, word in zip(roles, "abcd", strict=True)
    ]
    assert text_of(messages) == "a\n\nUser: b\n\nAssistant: c\n\nUser: d"


@pytest.fixture
def riddles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Environments of the real package, in an allowed module."""
    if not hasattr(pytest.importorskip("verifiers"), "load_environment"):
        pytest.skip("verifiers before 0.4 is needed")
    (tmp_path / "riddles.py").write_text(RIDDLES)
    monkeypatch.syspath_prepend(str(tmp_path))
    with allowing(["riddles"]):
        yield lambda kind, **settings: VerifiersEnvironment("riddles", kwargs={"kind": kind}, **settings)
    sys.modules.pop("riddles", None)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["single", "multi", "tool"])
def test_real_environments_keep_to_the_protocol(riddles: Any, kind: str) -> None:
    environment = riddles(kind, max_turns=3)
    environment.check_ready()
    assert check_env(environment, tasks_per_split=2).ends > 0


@pytest.mark.e2e
def test_real_environments_reward_what_is_right(riddles: Any) -> None:
    (start, right), (_, wrong) = played(riddles("single"), "1"), played(riddles("single"), "2")
    assert start.anchor == "0 + 1?"
    assert (right.end, wrong.end) == (EndReason.SUCCESS, EndReason.FAILURE)
    _, again, found = played(riddles("multi"), "5", "1")
    assert (again.observation.text, found.end) == ("Wrong.", EndReason.SUCCESS)
    *_, cut = played(riddles("multi", max_turns=2), "5", "5")
    assert (cut.end, cut.scores) == (EndReason.TURN_LIMIT, {"reward": 0.0})
    environment = riddles("tool")
    first, eight, done = played(environment, CALL, "1")
    preface = environment.preface(environment.tasks("train")[0])
    assert (preface.system, [tool.name for tool in preface.tools], first.text) == ("Be brief.", ["double"], "")
    assert (eight.observation.text, done.success) == ("<tool_response>\n8\n</tool_response>", True)


@pytest.mark.e2e
def test_real_errors_end_their_episode(riddles: Any) -> None:
    (_, crashed), (_, gone) = played(riddles("multi"), "crash"), played(riddles("multi"), "gone")
    assert (crashed.end, gone.end) == (EndReason.ERROR_ENVIRONMENT, EndReason.ERROR_TOOL)
    assert "crashed" in str(crashed.error)
    assert "no sandbox" in str(gone.error)


@pytest.mark.e2e
@pytest.mark.parametrize("real", [False, True], ids=["fake", "real"])
def test_two_iterations_train_on_it(real: bool, request: pytest.FixtureRequest) -> None:
    environment: Any = request.getfixturevalue("riddles")("multi", max_turns=2) if real else None
    if not real:
        request.getfixturevalue("made")
        environment = scripted(max_turns=2)
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None)
    curve = train(module, toy_datamodule(policy, environment=environment, tasks=3), 2).curve()
    assert len(curve) == 2
    assert all(figures["rollout/end/error_environment"] == 0 for figures in curve.values())
