"""A request is met as it is meant, or refused with the field that is at fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdar.rollout.settings import SamplingConfig
from sdar.serving.errors import ApiError
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
    assert (asked.system, asked.users, asked.answers) == ("be brief", ("hello", "and?"), ("",))


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
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperatur": 1}, "temperatur"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [*HELLO, *HELLO]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}, *HELLO]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x", "tool_calls": [{}]}, *HELLO]}, "messages"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_met_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert "\n" not in refused.value.message
    assert refused.value.body()["error"]["type"] == "invalid_request_error"
