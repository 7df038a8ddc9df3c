"""What OpenAI-style chat endpoints answer, read from their JSON, and the kinds of failures.

Source of the form: OpenAI's API reference, "Chat completion object" and "Errors".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sdar.environments.tools import CLOSE, OPEN, Call, call_of, loaded
from sdar.files import parse_json
from sdar.output.printable import printable

_TOO_LONG = re.compile(r"context_length_exceeded|maximum context length|exceeds? the (available )?context", re.I)
"""How servers say that a conversation is too long (OpenAI, vLLM, llama.cpp)."""


class Failure(StrEnum):
    """Why a request was not answered."""

    CONNECTION = "connection"
    """The server cannot be reached, or broke off."""
    TIMEOUT = "timeout"
    """The reply did not come in time."""
    RATE_LIMIT = "rate_limit"
    """Status 429."""
    SERVER = "server"
    """Status 408 or 5xx."""
    REFUSED = "refused"
    """Another status: the server does not accept the request, the key or the model."""
    INVALID_REPLY = "invalid_reply"
    """The reply is no chat completion."""
    NOT_TRIED = "not_tried"
    """Too many requests in a row had failed."""

    @property
    def is_final(self) -> bool:
        """Whether another attempt would fail, too."""
        return self in (Failure.REFUSED, Failure.NOT_TRIED)


class EndpointError(Exception):
    """A request that was not answered. ``wait_s``: the pause in seconds that the server asks for."""

    def __init__(self, kind: Failure, reason: str, *, wait_s: float = 0.0, status: int | None = None) -> None:
        super().__init__(f"{kind.value}: {printable(reason)}")
        self.kind = kind
        self.wait_s = wait_s
        self.status = status


class ConversationTooLongError(Exception):
    """The conversation and its response exceed the model's context: no failure of the server."""


@dataclass(frozen=True)
class Reply:
    """A response. ``truncated``: it reached its limit of tokens."""

    text: str
    truncated: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0


def is_too_long(said: str) -> bool:
    """Whether a refusal says that the conversation exceeds the model's context."""
    return _TOO_LONG.search(said) is not None


def words_of_refusal(content: bytes) -> str:
    """What a reply that refuses says: code and message in OpenAI's form, else its text."""
    text = content.decode(errors="replace")
    try:
        value = parse_json(text)
    except ValueError:
        return text
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return text
    return " ".join(str(error[name]) for name in ("code", "message") if error.get(name)) or text


def model_names(value: Any) -> list[str] | None:
    """Names in a list of models; None: it is none."""
    listed = value.get("data") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return None
    return [model["id"] for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]


def decode_reply(value: Any) -> Reply:
    """The first choice of a completion. A response without content (null) is empty. EndpointError: it is none.

    Calls of tools stand behind the content, in the form that environments read.
    """
    choices = value.get("choices") if isinstance(value, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    calls = message.get("tool_calls") or () if isinstance(message, dict) else ()
    content = message.get("content", "" if calls else 0) if isinstance(message, dict) else 0
    content = "" if content is None else content
    if isinstance(content, str) and isinstance(calls, list):
        content = "\n".join([*([content] if content else ()), *map(_written, calls)])
    if not isinstance(content, str):
        raise EndpointError(Failure.INVALID_REPLY, "the reply has no choice with a message and its content")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise EndpointError(Failure.INVALID_REPLY, "the reply's content is no Unicode text") from None
    usage = value.get("usage")
    counts = {
        name: found if isinstance(usage, dict) and isinstance(found := usage.get(name), int) else 0
        for name in ("prompt_tokens", "completion_tokens")
    }
    return Reply(content, first.get("finish_reason") == "length", **counts)  # type: ignore[union-attr]


def _written(call: Any) -> str:
    """A call of a reply as text; one without a name, or whose arguments are no JSON object, stays unreadable."""
    function = call.get("function") if isinstance(call, dict) else None
    given = function.get("arguments") if isinstance(function, dict) else None
    arguments = loaded(given or "{}") if isinstance(given, str) else given
    found = call_of({**function, "arguments": arguments}) if isinstance(function, dict) else None
    return f"{OPEN}{given}{CLOSE}" if found is None else Call(found.name, found.arguments).written()
