"""Episodes with a system message and a tool, in the environment of docs/custom_environment.md: token in, token out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from policy.test_preface import NATIVE, message, rendered
from sdar.callbacks.episode_log import EpisodeLog
from sdar.environments import check_env
from sdar.environments.base import Environment
from sdar.environments.check import EnvironmentCheckError
from sdar.environments.tools import as_text
from sdar.episode import NO_PREFACE, EndReason, Episode, Preface, Task, Tool
from sdar.errors import UserError
from sdar.look.episodes import read_episodes
from sdar.policy.chat import ChatFormat, Position
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.readiness import check_ready
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from toys.models import CHATML, tiny_random_model
from toys.rollouts import CountingEnvironment, fake_collector, requests
from toys.tokenizers import toy_tokenizer_of
from toys.training import HintTeacher, toy_datamodule, toy_module, train

GUIDE = Path(__file__).parents[2] / "docs" / "custom_environment.md"
LIMIT = 90


def safe() -> Environment:
    names: dict[str, Any] = {"__name__": "safe"}
    exec(re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1], names)
    made: Environment = names["SafeEnvironment"]()
    return made


def policy_of(name: str, template: str | None = None) -> LanguageModel:
    structure = NATIVE[name]
    tokenizer = structure.tokenizer()
    if template is not None:
        tokenizer = toy_tokenizer_of("bpe", template, structure.tokens, eos_token="<|im_end|>")
    model = tiny_random_model(vocab_size=len(tokenizer), hidden_size=16, num_layers=1, context_tokens=4096)
    return LanguageModel(model, tokenizer, ChatFormat.from_tokenizer(tokenizer), 4096, name, "weights")


class Script:
    """Says the same in every turn of all episodes: a text of each turn, then the end token unless it is cut."""

    def __init__(self, policy: LanguageModel, texts: list[str], *, cut: bool = False) -> None:
        ends = [] if cut else [policy.chat.end_id]
        encode = policy.tokenizer.encode
        self.turns = iter([[*encode(text, add_special_tokens=False), *ends] for text in texts])

    def start(self, num_slots: int) -> None: ...

    def close(self) -> None: ...

    def log_probs(self, slot: int) -> None: ...

    def respond(self, new_ids: Any, uniforms: Any) -> Any:
        said = next(self.turns)
        return {slot: list(said) for slot in new_ids}


def call(name: str, number: int) -> str:
    """As a model with this template writes it."""
    if name == "llama":
        return json.dumps({"name": "enter", "parameters": {"number": number}})
    return f"<tool_call>\n{json.dumps({'name': 'enter', 'arguments': {'number': number}})}\n</tool_call>"


def played(policy: LanguageModel, texts: list[str], *, cut: bool = False, **settings: Any) -> Episode:
    """The episode of the safe with the number 2."""
    rollout = RolloutSettings(sampling=SamplingConfig(max_response_tokens=LIMIT), **settings)
    collector = Collector(
        policy,
        safe(),
        rollout,
        generator_factory=lambda *_: Script(policy, texts, cut=cut),  # type: ignore[arg-type]
    )
    task = safe().tasks("train")[1]
    (episode,) = collector.collect([EpisodeRequest(task, 0)], seed=0, key=("x",)).episodes
    return episode


def conversation(episode: Episode) -> list[int]:
    return [token for turn in episode.turns for token in (*turn.context_ids, *turn.response_ids)]


@pytest.mark.parametrize("name", ["qwen2.5", "llama"])
def test_a_growing_conversation_has_the_templates_own_ids(name: str) -> None:
    policy = policy_of(name)
    said = [call(name, 5), f"{call(name, 7)} hm", call(name, 2)]
    episode = played(policy, said)
    assert (episode.end, len(episode.turns)) == (EndReason.SUCCESS, 3)
    assert [turn.response_text for turn in episode.turns] == said
    valid = name != "llama"  # a bare call that something follows is none
    assert [turn.valid for turn in episode.turns] == [True, valid, True]
    second = message("tool", "Call 1 is wrong.") if valid else message("user", "Nothing happens.")
    told = [message("user", "Open safe 2."), message("tool", "Call 1 is wrong."), second]
    messages = [part for pair in zip(told, (message("assistant", text) for text in said), strict=True) for part in pair]
    whole = rendered(policy.chat, episode.preface, messages, add_generation_prompt=False)
    ids = conversation(episode)
    assert whole[: len(ids)] == ids
    assert len(whole) - len(ids) <= 1  # Qwen's line feed after the end token


def test_sampled_tokens_stay_as_they_were_and_a_cut_response_is_ended() -> None:
    policy = policy_of("qwen3")
    episode = played(policy, ["<think>so</think>" + call("qwen3", 5), call("qwen3", 2)], cut=True)
    first, second = episode.turns
    assert (episode.end, first.truncated) == (EndReason.SUCCESS, True)
    chat = policy.chat.prefaced(episode.preface)
    assert second.context_ids == [chat.end_id, *chat.answer(["Call 1 is wrong."])]
    assert policy.tokenizer.convert_tokens_to_ids("<tool_call>") in first.response_ids
    assert first.action.startswith("<think>so</think><tool_call>")


def test_a_window_prompt_is_the_preface_and_one_users_text() -> None:
    policy = policy_of("llama")
    episode = played(policy, [call("llama", 5), call("llama", 2)], context="window", history_turns=1)
    chat, environment, (first, second) = policy.chat.prefaced(episode.preface), safe(), episode.turns
    assert first.context_ids == chat.opening("Open safe 2.")[0]
    text = environment.window_prompt(episode.task, [_past(first)], second.observation, 1)
    assert "<tool_response>\nCall 1 is wrong.\n</tool_response>" in text
    assert '> <tool_call>\n{"name": "enter", "arguments": {"number": 5}}\n</tool_call>' in text
    assert second.context_ids == chat.opening(text)[0]
    assert second.splice_index is not None
    assert episode.success


def _past(turn: Any) -> Any:
    from sdar.environments.base import PastTurn

    return PastTurn(turn.observation.text, turn.action)


def test_without_tools_in_the_template_results_are_text() -> None:
    policy = policy_of("qwen3", CHATML)
    episode = played(policy, [call("qwen3", 5), call("qwen3", 2)])
    assert episode.success
    text = "<tool_response>\nCall 1 is wrong.\n</tool_response>"
    assert episode.turns[1].context_ids == policy.chat.between(text)
    described = f"<|im_start|>system\n{as_text(episode.preface)}<|im_end|>\n<|im_start|>user\nOpen safe 2.<|im_end|>\n"
    assert policy.tokenizer.decode(episode.turns[0].context_ids).startswith(described)


class Prefaced(CountingEnvironment):
    """Task 0 has what ``answer`` makes, the others have nothing."""

    answer: Any = None

    def preface(self, task: Task) -> Preface:
        return self.answer() if task.payload == 0 else NO_PREFACE  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "end", "told"),
    [
        (lambda: 1 / 0, EndReason.ERROR_ENVIRONMENT, "ZeroDivisionError: division by zero"),
        (lambda: "system", EndReason.ERROR_ENVIRONMENT, "preface must return a Preface, got 'system'"),
        (lambda: Preface(3), EndReason.ERROR_ENVIRONMENT, "a system message must be Unicode text or None, got 3"),  # type: ignore[arg-type]
        (lambda: Preface("x" * 1_000_000), EndReason.CONTEXT_FULL, None),
    ],
)
def test_a_wrong_preface_ends_its_own_episode(answer: Any, end: EndReason, told: str | None) -> None:
    environment = Prefaced(num_tasks=4)
    environment.answer = answer
    episodes = fake_collector(environment).collect(requests(environment, 1), seed=0, key=("x",)).episodes
    assert [episode.end is end for episode in episodes] == [True, False, False, False]
    assert (episodes[0].end, episodes[0].turns) == (end, [])
    assert (told or "") in (episodes[0].error or "")
    if told is not None:
        with pytest.raises(EnvironmentCheckError, match=r"preface|system message|ZeroDivision"):
            check_env(environment)
        with pytest.raises(UserError, match=f"cannot be played: .*{re.escape(told)}"):
            check_ready(environment)


def test_a_preface_that_changes_is_told() -> None:
    environment, count = Prefaced(), iter(range(1000))
    environment.answer = lambda: Preface(f"{next(count)}")
    with pytest.raises(EnvironmentCheckError, match=r"preface\(\) returns a different one on the second call"):
        check_env(environment)


@pytest.mark.parametrize("name", ["qwen2.5", "llama"])
def test_room_for_the_teachers_block_is_left_to_the_token(name: str) -> None:
    """Around the block there are other texts than without a preface."""
    policy = policy_of(name)
    policy.chat = policy.chat.at("system")
    chat, task = policy.chat.prefaced(safe().preface(safe().tasks("train")[0])), safe().tasks("train")[0]
    needed = len(chat.opening(task.description)[0]) + len(chat.privileged("Hint.")) + LIMIT
    for context, ends in ((needed, False), (needed - 1, True)):
        policy.context_tokens = context
        rollout = RolloutSettings(sampling=SamplingConfig(max_response_tokens=LIMIT))
        collector = Collector(policy, safe(), rollout, lambda _: len(policy.chat.privileged("Hint.")))
        if not ends:
            collector.check_room([task])
            continue
        with pytest.raises(UserError, match="has a context of"):
            collector.check_room([task])


@pytest.mark.parametrize(("context", "position"), [*(("append", place) for place in Position), ("window", "system")])
def test_teacher_and_student_read_the_same_preface(context: str, position: str) -> None:
    policy, environment = policy_of("qwen2.5"), safe()
    policy.chat = policy.chat.at(position)
    environment.max_turns = 2
    for hint in ("", "Hint: it is 2."):
        data = toy_datamodule(policy, environment=environment, context=context, tasks=1)
        module = toy_module(policy, HintTeacher(hint), context=context, distillation_coefficient=0.5)
        curve = train(module, data, 1).steps[0]
        prepared = module.report.prepared
        added = len(policy.chat.prefaced(safe().preface(data.train_tasks[0])).privileged(hint))
        pairs = zip(prepared.teacher.rows.lengths(), prepared.batch.lengths(), strict=True)
        assert {taught - read for taught, read in pairs if read} == {added}
        assert (curve["curriculum/gap_mean"] == 0.0) == (hint == "")
        assert curve["rollout/end/error_environment"] == 0


def test_the_episode_log_has_the_preface(tmp_path: Path) -> None:
    policy = policy_of("qwen2.5")
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None)
    before = [weight.detach().clone() for weight in policy.model.parameters()]
    train(module, toy_datamodule(policy, environment=safe(), tasks=2), 1, callbacks=[EpisodeLog(tmp_path)])
    assert any(not torch.equal(old, new) for old, new in zip(before, policy.model.parameters(), strict=True))
    text = as_text(safe().preface(safe().tasks("train")[0]))
    records = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert {record["preface"] for record in records} == {text}
    for shown in read_episodes(tmp_path / "episodes.jsonl"):
        assert shown.opening.startswith(f"{text}\n\nOpen safe ")


def test_other_environments_records_are_as_they_were(tmp_path: Path) -> None:
    module = toy_module(toy := policy_of("qwen2.5"), distillation_coefficient=0.0, episodes_per_step=None)
    train(module, toy_datamodule(toy, tasks=2), 1, callbacks=[EpisodeLog(tmp_path)])
    assert '"preface"' not in (tmp_path / "episodes.jsonl").read_text()


def test_a_tool_without_parameters_takes_none() -> None:
    assert Tool("look").form()["function"]["parameters"] == {"type": "object", "properties": {}}
