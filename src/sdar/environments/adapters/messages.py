"""Messages of a chat, as other libraries write them, as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdar.environments.tools import answered, joined

_SPOKEN = {"user": "User", "assistant": "Assistant"}

Messages = Sequence[Mapping[str, Any]]


def system_of(messages: Messages) -> tuple[str, Messages]:
    """The text of the system messages at the beginning, and the other messages. ValueError for other content."""
    first = next((place for place, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return joined(*(content_text(message.get("content")) for message in messages[:first])), messages[first:]


def results_in(messages: Messages) -> tuple[str, ...]:
    """The contents of messages that are nothing but results of tools; none where others are among them."""
    if any(message["role"] != "tool" for message in messages):
        return ()
    return tuple(content_text(message.get("content")) for message in messages)


def text_of(messages: Messages) -> str:
    """Messages as one text, joined by blank lines.

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
