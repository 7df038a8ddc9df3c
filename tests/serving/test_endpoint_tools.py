"""A chat endpoint gets system message and tools as its API has them, and its calls are read like a policy's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_endpoint import completion, endpoint_of, plain

from rollout.test_tool_episodes import safe
from sdar.episode import Episode
from sdar.evaluation.chat_messages import Told, messages_of
from sdar.evaluation.endpoint_panel import ChatPlayer
from sdar.rollout.settings import RolloutSettings

PREFACE = safe().preface(safe().tasks("train")[0])


def calling(*numbers: int, content: str | None = None, arguments: str | None = None) -> Any:
    calls = [
        {
            "id": f"x{number}",
            "type": "function",
            "function": {"name": "enter", "arguments": arguments or json.dumps({"number": number})},
        }
        for number in numbers
    ]
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    return plain({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})


def played(replies: list[Any], **settings: Any) -> tuple[Episode, list[dict[str, Any]]]:
    """The episode of the safe with the number 2, and what was asked."""
    options = {name: settings.pop(name) for name in ("privileged", "system") if name in settings}
    with endpoint_of(replies) as server:
        player = ChatPlayer(server.client(), "toy", RolloutSettings(**settings), **options)
        (episode,) = player.play(safe(), safe().tasks("train")[1:2])
        return episode, server.asked


def test_calls_and_results_are_messages_of_their_own() -> None:
    episode, (first, second, third) = played([calling(5, 7, content="So."), completion("Hm."), calling(2)])
    assert episode.success
    assert first["tools"] == [tool.form() for tool in PREFACE.tools]
    opening = [{"role": "system", "content": PREFACE.system}, {"role": "user", "content": "Open safe 2."}]
    assert first["messages"] == opening
    calls = [
        {"id": f"call_0_{place}", "type": "function", "function": {"name": "enter", "arguments": f'{{"number": {n}}}'}}
        for place, n in enumerate((5, 7))
    ]
    answered = [
        *opening,
        {"role": "assistant", "content": "So.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0_0", "content": "Call 1 is wrong."},
        {"role": "tool", "tool_call_id": "call_0_1", "content": "Call 2 is wrong."},
    ]
    assert second["messages"] == answered
    assert third["messages"][len(answered) :] == [
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": "Nothing happens."},
    ]


@pytest.mark.parametrize("system", [True, False])
def test_a_privileged_text_has_its_place_beside_the_preface(system: bool) -> None:
    _, asked = played([calling(2)], privileged=lambda _: "Hint.\n\n", system=system)
    told, user = (message["content"] for message in asked[0]["messages"])
    assert told == (f"{PREFACE.system}\n\nHint.\n\n" if system else PREFACE.system)
    assert user == ("Open safe 2." if system else "Hint.\n\nOpen safe 2.")


def test_a_window_asks_anew_with_the_preface() -> None:
    episode, (_, second) = played([calling(5), calling(2)], context="window")
    assert episode.success
    assert [message["role"] for message in second["messages"]] == ["system", "user"]
    assert "<tool_response>\nCall 1 is wrong.\n</tool_response>" in second["messages"][1]["content"]


@pytest.mark.parametrize("arguments", ["{", "[2]", "2", '"{}"', '{"number": NaN}', '{"number": 1e999}'])
def test_arguments_that_are_no_object_make_no_call(arguments: str) -> None:
    episode, asked = played([calling(2, arguments=arguments), calling(2)])
    assert [turn.valid for turn in episode.turns] == [False, True]
    assert [message["role"] for message in asked[1]["messages"]] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[[NaN]]"])
def test_no_message_has_a_number_that_json_has_not(number: str) -> None:
    said = [f'<tool_call>{{"name": "enter", "arguments": {{"number": {number}}}}}</tool_call>']
    messages = messages_of("", [Told("Go."), Told("So.", ("1",))], said, tools=True)
    assert messages[1] == {"role": "assistant", "content": said[0]}


def test_calls_without_a_result_for_each_are_text() -> None:
    said = ['<tool_call>{"name": "enter", "arguments": {}}</tool_call>']
    told = [Told("Go."), Told("Once.", ("1", "2"))]
    assert messages_of("", told, said, tools=True)[1:] == [
        {"role": "assistant", "content": said[0]},
        {"role": "user", "content": "Once."},
    ]
