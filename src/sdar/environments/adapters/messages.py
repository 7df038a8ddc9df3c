"""Messages of a chat and calls of tools as plain text: an episode here has one user text per turn, and nothing else.

Calls and results are written as the chat templates of Hermes and Qwen write them: a call is a JSON object in
``<tool_call>``, its result stands in ``<tool_response>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdar.environments.adapters.foreign import joined

HOW_TO_CALL = (
    "You can call tools. A call is a JSON object between <tool_call> and </tool_call>, such as\n"
    '<tool_call>{"name": "NAME", "arguments": {"ARGUMENT": 1}}</tool_call>\n'
    "Its result comes back between <tool_response> and </tool_response>. A response without a call is the last one. "
    "Tools:"
)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_SPOKEN = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class Call:
    """A call of a tool: its ``name`` and its ``arguments`` by name."""

    name: str
    arguments: Mapping[str, Any]


def calls_in(response: str) -> tuple[list[Call], bool]:
    """The calls of a response, in order, and whether all that looks like one is one. What is none is left out."""
    found = [_call(text) for text in _CALL.findall(response)]
    calls = [call for call in found if call is not None]
    return calls, len(calls) == response.count("<tool_call>") == response.count("</tool_call>")


def without_calls(response: str) -> str:
    """What a response says beside its calls."""
    return _CALL.sub("", response).strip()


def described(tools: Iterable[str]) -> str:
    """How to call tools, and a line for each of them; nothing where there are none."""
    lines = [f"- {tool}" for tool in tools]
    return "\n".join([HOW_TO_CALL, *lines]) if lines else ""


def answered(result: str) -> str:
    """The result of a call as the agent reads it."""
    return f"<tool_response>\n{result}\n</tool_response>"


def text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages as one text: instructions of the system, then what the user says, joined by blank lines.

    A conversation with replies in it, such as solved examples, has ``User:`` and ``Assistant:`` in front of each part.
    ValueError for content that is not text.
    """
    spoken = any(message["role"] == "assistant" for message in messages)
    parts = []
    for message in messages:
        text, role = content_text(message.get("content")), message["role"]
        if role == "tool":
            text = answered(text)
        elif spoken and role in _SPOKEN:
            text = f"{_SPOKEN[role]}: {text}"
        parts.append(text)
    return joined(*parts)


def content_text(content: Any) -> str:
    """The text of a message's content, which may come in parts. ValueError for other parts, such as images."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [part.get("text") for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a message must be text; its content has a part of another kind, such as an image")
    return "\n".join(texts)


def _call(text: str) -> Call | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", {})
    return Call(found["name"], arguments) if isinstance(arguments, dict) else None
