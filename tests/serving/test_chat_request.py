"""A request is met as it is meant, or refused with the field that is at fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdar.environments.tools import Call
from sdar.episode import Preface, Tool
from sdar.evaluation.chat_messages import Told
from sdar.rollout.settings import SamplingConfig
from sdar.serving.errors import ApiError
from sdar.serving.messages import Said
from sdar.serving.request import ChatRequest, read_request

DEFAULTS = SamplingConfig(temperature=0.4, top_p=0.9, top_k=7, max_response_tokens=48)
HELLO = [{"role": "user", "content": "hello"}]


def read(**fields: Any) -> ChatRequest:
    return read_request(json.dumps({"model": "toy", "messages": HELLO, **fields}).encode(), DEFAULTS)


def test_what_a_request_does_not_say_is_as_the_server_samples() -> None:
    asked = read()
    assert asked.sampling == DEFAULTS
    assert not asked.asked_limit
    assert (asked.seed, asked.stream, asked.usage) == (None, False, False)


def test_what_a_request_says_counts() -> None:
    asked = read(
        temperature=0, top_p=1, top_k=0, max_tokens=3, seed=-5, stream=True, stream_options={"include_usage": True}
    )
    assert asked.sampling == SamplingConfig(temperature=0, max_response_tokens=3)
    assert (asked.asked_limit, asked.seed, asked.stream, asked.usage) == (True, -5, True, True)
    assert read(max_completion_tokens=4).sampling.max_response_tokens == 4


def test_fields_that_change_nothing_are_taken() -> None:
    plain = read()
    assert plain == read(tool_choice="none", parallel_tool_calls=False)
    assert plain == read(n=1, stop=None, tools=[], user="me", frequency_penalty=0.0, response_format={"type": "text"})


def test_a_conversation_is_taken_apart() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    asked = read(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "and?"},
        ]
    )
    assert asked.preface == Preface("be brief")
    assert (asked.told, asked.said) == ((Told("hello"), Told("and?")), (Said(""),))


ENTER = {"type": "function", "function": {"name": "enter", "parameters": {"properties": {"number": {}}}}}


def called(*numbers: int, content: str | None = None) -> dict[str, Any]:
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "enter", "arguments": json.dumps({"number": n})}}
        for n in numbers
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(number: int, text: str = "no") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"c{number}", "content": text}


def test_calls_and_their_results_take_turns_with_texts() -> None:
    # Results may come in another order than the calls.
    messages = [*HELLO, called(1, 2, content="So."), result(2, "two"), result(1, "one"), called(3), result(3)]
    asked = read(tools=[ENTER], messages=messages, tool_choice="auto", parallel_tool_calls=True)
    assert asked.may_call
    assert not read(tools=[ENTER], tool_choice="none").may_call
    assert asked.preface.tools == (Tool("enter", "", {"properties": {"number": {}}}),)
    first, second, third = (Call("enter", {"number": number}) for number in (1, 2, 3))
    assert asked.said == (Said("So.", (first, second)), Said("", (third,)))
    assert [told.results for told in asked.told] == [(), ("one", "two"), ("no",)]
    assert asked.told[1].text == "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"


BAD = {"id": "c1", "function": {"name": "enter", "arguments": "{"}}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([*HELLO, called(1)], "messages"),
        ([*HELLO, called(1), *HELLO], "messages"),
        ([*HELLO, called(1, 2), result(1)], "messages"),
        ([*HELLO, called(1), result(1), *HELLO], "messages"),
        ([result(1)], "messages"),
        ([*HELLO, called(1), result(2)], "messages[2].tool_call_id"),
        ([*HELLO, called(1, 1), result(1), result(1)], "messages[2].tool_call_id"),
        ([*HELLO, called(1), {**result(1), "content": 3}], "messages[2].content"),
        ([*HELLO, {**called(1), "tool_calls": [BAD]}, result(1)], "messages[1].tool_calls[0]"),
        ([*HELLO, {**called(1), "tool_calls": [7]}, result(1)], "messages[1].tool_calls[0]"),
        ([*HELLO, {**called(1), "tool_calls": {"a": 1}}, result(1)], "messages[1].tool_calls"),
        ([*HELLO, {"role": "assistant", "content": "", "function_call": {"name": "x"}}], "messages[1].tool_calls"),
    ],
    ids=str,
)
def test_calls_that_cannot_be_answered_are_named(messages: list[Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(tools=[ENTER], messages=messages)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"\xff", None, "must be JSON"),
        (b"{", None, "must be JSON"),
        (b"[" * 200_000, None, "nested too deeply"),
        (b"[1]", None, "must be a JSON object"),
        (b"{}", "model", "model must be"),
    ],
    ids=["no UTF-8", "half of it", "deep", "a list", "empty"],
)
def test_a_body_that_is_no_request(body: bytes, param: str | None, words: str) -> None:
    with pytest.raises(ApiError, match=words) as refused:
        read_request(body, DEFAULTS)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"seed": 1 << 63}, "seed"),
        ({"seed": True}, "seed"),
        ({"stream": 1}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": {}}, "tools"),
        ({"tools": [ENTER, ENTER]}, "tools"),
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": True}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]}, "tools[0]"),
        ({"tools": [ENTER], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [ENTER], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperatur": 1}, "temperatur"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [*HELLO, *HELLO]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}, *HELLO]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x", "tool_calls": [{}]}, *HELLO]}, "tools"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_met_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert "\n" not in refused.value.message
    assert refused.value.body()["error"]["type"] == "invalid_request_error"
