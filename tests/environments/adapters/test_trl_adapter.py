"""Classes in TRL's form: public methods are tools, rows are the arguments of reset, the object has the reward."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from sdar.config.plugins import allowing
from sdar.environments import check_env
from sdar.environments.adapters.trl import TrlEnvironment, tools_of
from sdar.environments.base import PastTurn
from sdar.episode import EndReason, Observation, Preface
from sdar.errors import UserError
from toys.checks import checked
from toys.training import toy_datamodule, toy_module, toy_policy, train
from toys.waiting import passing_deadlines


class Safe:
    """A safe whose number has to be entered. ``fault`` is class-wide and strikes at even seeds."""

    fault = ""

    def reset(self, seed: int, **row: Any) -> str:
        self.trip("reset", seed)
        self.seed, self.number, self.open = seed, seed % 3, False
        return f"The safe of house {seed}."

    def enter(self, number: int) -> str:
        """
        Enters a number.

        Args:
            number: what to enter.
        """
        self.trip("tool", self.seed)
        self.trip("exit", self.seed)
        self.open = number == self.number
        return "It opens." if self.open else "Nothing."

    async def listen(self) -> dict[str, int]:
        """Listens to the lock."""
        return {"clicks": self.number}

    def get_reward(self) -> float | None:
        self.trip("reward", self.seed)
        return None if self.fault == "none" else float(self.open)

    def trip(self, place: str, seed: int) -> None:
        if self.fault == place and seed % 2 == 0:
            raise SystemExit(3) if place == "exit" else RuntimeError(f"{place} is broken")

    def _hidden(self) -> None: ...


class Silent(Safe):
    """Without a reward of its own."""

    get_reward = property()  # type: ignore[assignment]  # hasattr is false


def brevity(prompts: Any, completions: Any, environments: Any, seed: Any, **columns: Any) -> list[float]:
    assert len(prompts) == len(completions) == len(environments) == len(seed) == 1
    return [0.25 if completions[0][-1]["content"] == "Done." else 0.0]


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def safe(**settings: Any) -> TrlEnvironment:
    return TrlEnvironment(settings.pop("factory", Safe), **({"num_tasks": [6, 6], "max_turns": 4} | settings))


def played(environment: TrlEnvironment, *responses: str, task: int = 0) -> list[Any]:
    pool = environment.open_pool()
    walk: list[Any] = pool.reset([environment.tasks("train")[task]])
    walk += [pool.step({0: response})[0] for response in responses]
    pool.close()
    return walk


@pytest.mark.parametrize("fault", ["", "reset", "tool", "reward"])
def test_it_keeps_to_the_protocol(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Safe, "fault", fault)
    checked(lambda: check_env(safe()).ends > 0, fails=fault in ("reset", "reward"))


def test_public_methods_are_tools_as_trl_describes_them() -> None:
    assert list(tools_of(Safe())) == ["enter", "listen", "trip"]
    environment = safe(prompt="Open it. ")
    (task, *_), (start,) = environment.tasks("train"), played(environment)
    enter, listen, trip = environment.preface(task).tools
    assert (enter.name, enter.description) == ("enter", "Enters a number.")
    number = {"type": "integer", "description": "what to enter."}
    assert enter.parameters == {"type": "object", "properties": {"number": number}, "required": ["number"]}
    assert listen.parameters == {"type": "object", "properties": {}}
    assert trip.parameters == {"type": "object", "properties": {"place": {}, "seed": {}}, "required": ["place", "seed"]}
    assert environment.opening(task, start) == "Open it. The safe of house 0."
    terse = safe(prompt_style="terse")
    assert not terse.preface(terse.tasks("train")[0])


def test_calls_are_made_and_a_response_without_one_is_rewarded() -> None:
    two = call("listen") + call("enter", number=0)
    _, both, done = played(safe(reward_scale=10), two, "Done.")
    results = ["<tool_response>\n{'clicks': 0}\n</tool_response>", "<tool_response>\nIt opens.\n</tool_response>"]
    assert (both.observation.text, both.reward, both.done) == ("\n".join(results), 0.0, False)
    assert both.observation.results == ("{'clicks': 0}", "It opens.")
    assert (done.reward, done.end, done.scores) == (10.0, EndReason.SUCCESS, {"reward": 1.0})
    _, gave_up = played(safe(), "I give up.")
    assert (gave_up.reward, gave_up.end) == (0.0, EndReason.FAILURE)


def test_the_calls_of_the_last_response_are_not_made() -> None:
    *_, last = played(safe(max_turns=2), call("listen"), call("enter", number=0))
    assert (last.done, last.end, last.reward) == (True, EndReason.TURN_LIMIT, 0.0)


class Connected(Safe):
    """Its connection belongs to the event loop of ``reset``."""

    async def reset(self, seed: int, **row: Any) -> str:  # type: ignore[override]
        self.line = asyncio.get_running_loop().create_future()
        self.line.set_result(f"seed {seed}")
        return Safe.reset(self, seed)

    async def ask(self) -> list[str]:
        """Asks over the line."""
        assert self.line.get_loop() is asyncio.get_running_loop()
        return ["said", await self.line]


def test_a_connection_outlives_a_call_and_a_list_is_a_text() -> None:
    pool = safe(factory=Connected).open_pool()
    try:
        pool.reset(list(safe(factory=Connected).tasks("train"))[:2])
        seen = pool.step({slot: call("ask") for slot in (0, 1)})
        assert [seen[slot].observation.results for slot in (0, 1)] == [("['said', 'seed 0']",), ("['said', 'seed 1']",)]
    finally:
        pool.close()


@pytest.mark.parametrize(
    "prompt", ["null", '[{"content": "x"}]', '[{"role": "user", "content": [{"type": "image"}]}]', "7"]
)
def test_rows_without_a_prompt_that_can_be_read_are_refused(tmp_path: Path, prompt: str) -> None:
    (tmp_path / "valid.jsonl").write_text(f'{{"seed": 1, "prompt": {prompt}}}\n')
    with pytest.raises(UserError, match=r"valid\.jsonl: row 1 must have a prompt that is a text, or messages"):
        safe(data_dir=tmp_path).tasks("valid")


def test_later_prompts_of_a_window_have_what_reset_returned() -> None:
    environment = safe()
    (task, *_) = environment.tasks("train")
    (start,) = environment.open_pool().reset([task])
    first = environment.window_prompt(task, [], start, 0)
    assert "The safe of house 0." in first
    later = environment.window_prompt(task, [], Observation("Nothing.", None, ""), 3)
    assert "The safe of house 0." in later
    shown = environment.window_prompt(task, [PastTurn(start.text, "act")], Observation("Nothing.", None, ""), 1)
    assert shown.count("The safe of house 0.") == 1


def test_an_error_of_a_tool_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    _, unknown, wrong = played(safe(), call("reset", seed=1), call("enter", digit=1))
    assert unknown.observation.text == "<tool_response>\n{'error': 'Tool reset not found.'}\n</tool_response>"
    assert "unexpected keyword argument 'digit'" in wrong.observation.text
    monkeypatch.setattr(Safe, "fault", "tool")
    _, broken, done = played(safe(), call("enter", number=0), "Done.")
    assert "{'error': 'tool is broken'}" in broken.observation.text
    assert done.end is EndReason.FAILURE


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("reset", "reset is broken"),
        ("reward", "reward is broken"),
        ("exit", "SystemExit: 3"),
        ("none", "every reward function returned None"),
    ],
)
def test_any_other_error_ends_its_own_episode(fault: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Safe, "fault", fault)
    response = call("enter", number=0) if fault == "exit" else "Done."
    last = played(safe(), *([] if fault == "reset" else [response]))[-1]
    assert (last.end, last.reward, last.done) == (EndReason.ERROR_ENVIRONMENT, 0.0, True)
    assert told in str(last.error)
    if fault != "none":
        *_, other = played(safe(), call("enter", number=1), "Done.", task=1)
        assert other.success


def test_a_reward_function_is_added_to_the_objects_own() -> None:
    *_, both = played(safe(reward=brevity), call("enter", number=0), "Done.")
    assert both.reward == 1.25
    with pytest.raises(UserError, match=r"environment\.reward is needed: Silent has no get_reward"):
        safe(factory=Silent).check_ready()
    *_, alone = played(safe(factory=Silent, reward=brevity, success_threshold=0.25), "Done.")
    assert alone.success


def test_rows_of_files_are_the_arguments_of_reset(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be quick."}, {"role": "user", "content": "Open it: "}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": messages, "seed": 7}) + "\n")
    (tmp_path / "valid.jsonl").write_text(json.dumps({"prompt": "Go.", "seed": 8}) + "\n")
    environment = safe(data_dir=tmp_path, prompt_style="terse")
    (task,) = environment.tasks("train")
    start, _, done = played(environment, call("enter", number=1), "Done.")
    assert environment.preface(task) == Preface("Be quick.")
    assert environment.opening(task, start) == "Open it: The safe of house 7."
    assert done.success
    assert check_env(environment).tasks == 2
    with pytest.raises(UserError, match=r"environment\.data_dir"):
        safe(data_dir=tmp_path / "none").tasks("train")


def test_splits_are_disjoint_seeds_and_survive_another_process() -> None:
    environment = safe()
    seeds = [{task.payload["seed"] for task in environment.tasks(split)} for split in ("train", "valid")]
    assert seeds[0].isdisjoint(seeds[1])
    other = pickle.loads(pickle.dumps(environment))
    assert other.tasks("train") == environment.tasks("train")
    assert played(other, "Done.")[1] == played(environment, "Done.")[1]


def test_only_objects_of_allowed_packages_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vault.py").write_text(
        "from os import getcwd\n\nclass Vault:\n    def reset(self, **row): return 'x'\n"
        "    def get_reward(self): return 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="if you trust it, add --allow vault"):
        TrlEnvironment("vault.Vault").check_ready()
    assert "vault" not in sys.modules
    with allowing(["vault"]):
        TrlEnvironment("vault.Vault").check_ready()
        with pytest.raises(UserError, match="add --allow posix"):
            TrlEnvironment("vault.getcwd").check_ready()
        with pytest.raises(UserError, match=r"must be the dotted name of a class or a function, got vault\.Nothing"):
            TrlEnvironment("vault.Nothing").check_ready()
    sys.modules.pop("vault", None)


def test_a_start_that_hangs_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with passing_deadlines() as deadlines:
        monkeypatch.setattr(Safe, "reset", deadlines.hang)
        with pytest.raises(UserError, match=r"cannot be played: the start of an episode did not answer within 60 s"):
            safe().check_ready()


def test_a_class_without_reset_is_refused() -> None:
    with pytest.raises(UserError, match=r"environment\.factory=object must make an object with a method reset"):
        TrlEnvironment(object).check_ready()


@pytest.mark.e2e
def test_a_reward_function_of_trl_is_taken_by_its_name() -> None:
    pytest.importorskip("trl")
    with allowing(["trl"]):
        environment = safe(factory=Silent, reward="trl.rewards.think_format_reward")
        *_, right = played(environment, "<think>\nso\n</think>\nDone.")
        *_, wrong = played(environment, "Done.")
    assert (right.reward, wrong.reward) == (1.0, 0.0)


@pytest.mark.e2e
def test_trl_finds_the_same_tools() -> None:
    """As ``GRPOTrainer`` lists them for its dictionary of tools."""
    grpo = pytest.importorskip("trl.trainer.grpo_trainer")
    source = Path(grpo.__file__).read_text()
    assert 'if member_name not in ("reset", "get_reward") and not member_name.startswith("_")' in source
    assert 'result = {"error": str(e)}' in source
    assert 'raise ValueError(f"Tool {name} not found.")' in source


@pytest.mark.e2e
def test_two_iterations_train_on_it() -> None:
    policy = toy_policy()
    environment = safe(prompt_style="terse", max_turns=2)
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None)
    curve = train(module, toy_datamodule(policy, environment=environment, tasks=3), 2).curve()
    assert len(curve) == 2
    assert all(figures["rollout/end/error_environment"] == 0 for figures in curve.values())
