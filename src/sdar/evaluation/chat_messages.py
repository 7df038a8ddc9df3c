"""A conversation as the messages of a chat endpoint, calls of tools and their results included.

Source of the form: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from sdar.environments.tools import Call, calls_in, without_calls

Message = dict[str, Any]
"""``role`` and ``content``; with calls also ``tool_calls``, with the result of one ``tool_call_id``."""


@dataclass(frozen=True)
class Told:
    """What an agent is told before a response: a user's ``text``, or ``results`` of the calls before it."""

    text: str
    results: tuple[str, ...] = ()


def messages_of(system: str, told: Sequence[Told], said: Sequence[str], *, tools: bool) -> list[Message]:
    """The messages of a conversation in which ``said`` are the responses, one fewer than what was told.

    With ``tools``, calls are messages of their own kind where each of them has a result; else call and answer are
    texts.
    """
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    answered = 0
    for number, (heard, response) in enumerate(zip_longest(told, said)):
        if answered:
            results = zip(_ids(number - 1, answered), heard.results, strict=True)
            messages += [{"role": "tool", "tool_call_id": name, "content": result} for name, result in results]
        else:
            messages.append({"role": "user", "content": heard.text})
        if response is not None:
            calls = len(calls_in(response)[0]) if tools else 0
            answered = calls if calls == len(told[number + 1].results) else 0
            messages.append(_assistant(response, number) if answered else {"role": "assistant", "content": response})
    return messages


def made(calls: Sequence[Call], ids: Sequence[str]) -> list[Message]:
    """Calls as ``tool_calls`` of a message has them."""
    return [
        {
            "id": name,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for name, call in zip(ids, calls, strict=True)
    ]


def _assistant(response: str, number: int) -> Message:
    calls, _ = calls_in(response)
    called = made(calls, _ids(number, len(calls)))
    return {"role": "assistant", "content": without_calls(response), "tool_calls": called}


def _ids(number: int, count: int) -> list[str]:
    return [f"call_{number}_{place}" for place in range(count)]
