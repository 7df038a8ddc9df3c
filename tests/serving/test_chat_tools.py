"""A served policy calls tools as it does in rollouts: the same ids before it, and the same calls read from its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from served import post, serving

from policy.test_preface import NATIVE
from rollout.test_tool_episodes import LIMIT, call, conversation, played, policy_of, safe
from sdar.episode import Episode
from sdar.evaluation.endpoint import Endpoint, EndpointSettings
from sdar.evaluation.endpoint_panel import ChatPlayer
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import LanguageModel
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.serving import chat
from sdar.serving.chat import ChatModel
from sdar.serving.request import read_request
from sdar.serving.server import ChatServer
from toys.models import CHATML

SAMPLING = SamplingConfig(max_response_tokens=LIMIT)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids in front of each response of a server whose policy is :func:`scripted`."""
    found: list[list[int]] = []
    monkeypatch.setattr(chat, "TurnGenerator", lambda *_, **__: _Script(found))
    _Script.turns.clear()
    return found


class _Script:
    """Says the next of ``turns``, a token at a time."""

    turns: list[list[int]] = []  # noqa: RUF012 - of the test

    def __init__(self, fed: list[list[int]]) -> None:
        self.fed = fed

    def start(self, num_slots: int) -> None: ...

    cache_bytes = 1

    def respond(self, new_ids: Any, _: Any) -> Any:
        if new_ids[0]:
            self.fed.append(new_ids[0])
        turn = self.turns[0]
        token = turn.pop(0)
        if not turn:
            self.turns.pop(0)
        return {0: [token]}


def scripted(policy: LanguageModel, texts: list[str]) -> ChatModel:
    encode = policy.tokenizer.encode
    _Script.turns += [[*encode(text, add_special_tokens=False), policy.chat.end_id] for text in texts]
    return ChatModel(policy, SAMPLING, kept_bytes=0)


def asked_of(server: ChatServer) -> Episode:
    """The episode of the safe with the number 2, played over HTTP."""
    player = ChatPlayer(Endpoint(EndpointSettings(server.url)), "toy", RolloutSettings(sampling=SAMPLING))
    (episode,) = player.play(safe(), safe().tasks("train")[1:2])
    return episode


@pytest.mark.parametrize(
    ("name", "template"), [("qwen2.5", None), ("qwen3", None), ("llama", None), ("qwen3", CHATML)],
    ids=["qwen2.5", "qwen3", "llama", "described"],
)  # fmt: skip
def test_an_episode_over_http_is_that_of_a_rollout(name: str, template: str | None, fed: list[list[int]]) -> None:
    policy = policy_of(name, template)
    said = [call(name, 5), "Hm.", call(name, 2)]
    rollout = played(policy, said)
    with serving(scripted(policy, said)) as server:
        episode = asked_of(server)
    assert (episode.success, len(episode.turns)) == (rollout.success, 3) == (True, 3)
    for turn, other in zip(episode.turns, rollout.turns, strict=True):
        assert (turn.valid, turn.observation) == (other.valid, other.observation)
    whole = conversation(rollout)
    assert [len(ids) for ids in fed] == sorted(len(ids) for ids in fed)
    assert all(ids == whole[: len(ids)] for ids in fed)


def test_a_call_that_cannot_be_read_is_a_text_and_stays_one(fed: list[list[int]]) -> None:
    policy = policy_of("llama")
    said = ['{"name": "enter", "parameters": {"number"', call("llama", 2)]
    rollout = played(policy, said)
    with serving(scripted(policy, said)) as server:
        episode = asked_of(server)
    assert [turn.valid for turn in episode.turns] == [turn.valid for turn in rollout.turns] == [False, True]
    assert fed[1] == conversation(rollout)[: len(fed[1])]


@pytest.mark.parametrize("stream", [False, True])
def test_calls_have_openais_form(fed: list[list[int]], stream: bool) -> None:
    policy = policy_of("qwen3")
    tools = [tool.form() for tool in safe().preface(safe().tasks("train")[0]).tools]
    said = f"I try.\n{call('qwen3', 1)}\n{call('qwen3', 2)}"
    with serving(scripted(policy, [said])) as server:
        reply = post(server, messages="Open it.", tools=tools, stream=stream, max_tokens=400)
    assert reply.status == 200, reply.data
    if stream:
        *chunks, last = [json.loads(line[6:])["choices"][0] for line in reply.data.decode().split("\n\n")[:-2]]
        text = "".join(chunk["delta"].get("content", "") for chunk in chunks)
        (calls,) = [chunk["delta"]["tool_calls"] for chunk in chunks if "tool_calls" in chunk["delta"]]
        assert [found.pop("index") for found in calls] == [0, 1]
    else:
        last = reply.json()["choices"][0]
        text, calls = last["message"]["content"], last["message"]["tool_calls"]
    assert (text, last["finish_reason"]) == ("I try.", "tool_calls")
    assert [(found["type"], found["function"]["name"]) for found in calls] == [("function", "enter")] * 2
    assert [json.loads(found["function"]["arguments"]) for found in calls] == [{"number": 1}, {"number": 2}]
    assert len({found["id"] for found in calls}) == 2
    assert len(fed) == 1


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "Ann", "parameters": {"age": 3}}',  # nobody offered that
        '{"name": "enter", "parameters": {"number": "\\ud83d"}}',  # half a character
        '{"name": "enter", "parameters": {"number"',
    ],
    ids=["unknown", "half a character", "cut"],
)
def test_what_is_no_call_of_these_tools_is_the_text_that_it_is(fed: list[list[int]], said: str) -> None:
    assert answered(policy_of("llama"), said) == {"role": "assistant", "content": said}
    assert len(fed) == 1


def test_a_request_may_want_a_text(fed: list[list[int]]) -> None:
    said = call("qwen3", 1)
    assert answered(policy_of("qwen3"), said, tool_choice="none") == {"role": "assistant", "content": said}
    assert "enter" in policy_of("qwen3").tokenizer.decode(fed[0])  # the tools are shown, so that calls before it fit


def answered(policy: LanguageModel, said: str, **fields: Any) -> dict[str, Any]:
    tools = [tool.form() for tool in safe().preface(safe().tasks("train")[0]).tools]
    with serving(scripted(policy, [said])) as server:
        reply = post(server, messages="Open it.", tools=tools, max_tokens=400, **fields)
    assert reply.status == 200, reply.data
    message: dict[str, Any] = reply.json()["choices"][0]["message"]
    return message


@pytest.mark.usefixtures("fed")
def test_a_stream_of_single_bytes_says_what_the_whole_says() -> None:
    """SentencePiece's bytes are decoded together: what follows may change what was a character before."""
    tokenizer = NATIVE["qwen2.5"].tokenizer("spm")
    policy = replace(policy_of("qwen2.5"), tokenizer=tokenizer, chat=ChatFormat.from_tokenizer(tokenizer))
    bytes_ = tokenizer.convert_tokens_to_ids(["<0xC3>", "<0xA9>", "<0xE2>"])
    (letter,) = tokenizer.convert_tokens_to_ids(["a"])
    for said in ([*bytes_, letter], [*bytes_[:2], letter], [letter, *bytes_], [letter, *bytes_[:2]]):
        _Script.turns.append([*said, policy.chat.end_id])
        answer = ChatModel(policy, SAMPLING, kept_bytes=0).answer(
            read_request(b'{"model": "toy", "messages": [{"role": "user", "content": "hello"}]}', SAMPLING)
        )
        assert "".join(answer) == answer.text == policy.chat.decode(said)


@pytest.mark.parametrize("name", ["qwen2.5", "llama"])
def test_calls_of_somebody_else_are_written_as_the_model_writes_them(name: str) -> None:
    """The ids of the conversation are those of the template, but for texts beside bare calls."""
    policy, preface = policy_of(name), safe().preface(safe().tasks("train")[0])
    function = {"name": "enter", "arguments": '{"number": 5}'}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": preface.system},
        {"role": "user", "content": "Open it."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "x", "content": "no"},
    ]
    body = {"model": "toy", "messages": messages, "tools": [tool.form() for tool in preface.tools]}
    ids = ChatModel(policy, SAMPLING).prompt(read_request(json.dumps(body).encode(), SAMPLING)).ids
    messages[2] = {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "enter", "arguments": {"number": 5}}}
    ]}  # fmt: skip
    rendered = policy.tokenizer.apply_chat_template(
        messages, tools=body["tools"], add_generation_prompt=True, return_dict=False, date_string="01 Jan 2026"
    )
    assert ids == rendered
