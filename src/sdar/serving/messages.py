"""The messages and tools of a chat completion request.

Source of the form: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdar.config.words import shown
from sdar.environments.tools import Call, call_of, calls_in, loaded, tool_results, without_calls
from sdar.episode import Tool, is_unicode
from sdar.evaluation.chat_messages import Told, made
from sdar.serving.errors import ApiError, wrong

_MOST_TOOLS = 128
_ORDER = (
    "an optional system message, and then user and assistant in turn with a user's at the end, where the results of "
    "all its calls take the user's place behind an assistant's message with calls"
)


@dataclass(frozen=True)
class Said:
    """A message of the assistant: its text, and the calls of tools behind it."""

    text: str
    calls: tuple[Call, ...] = ()

    @classmethod
    def calling(cls, response: str, tools: Sequence[Tool]) -> Said | None:
        """The message of a response in the form of environments; None: it has no calls, or others than of these tools.

        Nor are there any where one of them cannot be read.
        """
        calls, whole = calls_in(response)
        known = {tool.name for tool in tools}
        if not calls or not whole or not all(call.name in known and is_unicode(call.written()) for call in calls):
            return None
        return cls(without_calls(response), tuple(calls))

    def written(self) -> str:
        """The message in the form that environments read."""
        return "\n".join([*([self.text] if self.text or not self.calls else ()), *(c.written() for c in self.calls)])

    def message(self, prefix: str) -> dict[str, Any]:
        """The message as a reply has it; ``prefix`` begins the ids of its calls."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or (None if self.calls else "")}
        if self.calls:
            message["tool_calls"] = made(self.calls, [f"{prefix}{number}" for number in range(len(self.calls))])
        return message


def tools_of(value: Any) -> tuple[Tool, ...]:
    """The tools of a request. ApiError 400: they cannot be offered."""
    if not isinstance(value, list) or len(value) > _MOST_TOOLS:
        got = f"{len(value)}" if isinstance(value, list) else type(value).__name__
        raise wrong("tools", f"a list of at most {_MOST_TOOLS} functions", got)
    tools = tuple(_tool(f"tools[{number}]", entry) for number, entry in enumerate(value))
    if len({tool.name for tool in tools}) < len(tools):
        raise wrong("tools", "functions with different names", ", ".join(sorted(tool.name for tool in tools)))
    return tools


def _tool(where: str, value: Any) -> Tool:
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise wrong(where, "an object with type function and a function that has a name")
    if function.get("strict"):
        raise ApiError(400, f"{where}: strict is not supported here", param=where, code="unsupported_parameter")
    try:
        return Tool(function["name"], function.get("description") or "", function.get("parameters") or {})
    except ValueError as error:
        raise ApiError(400, f"{where}: {error}", param=where, code="invalid_value") from None


def conversation_of(messages: Any, *, with_tools: bool) -> tuple[str | None, tuple[Told, ...], tuple[Said, ...]]:
    """System message, what was told and what was said, in turn. ApiError 400: a policy cannot answer it."""
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", "a list of at least one message")
    roles = [_role(number, message) for number, message in enumerate(messages)]
    place = 1 if roles[0] == "system" else 0
    system = _text("messages[0].content", messages[0].get("content")) if place else None
    told: list[Told] = []
    said: list[Said] = []
    while place < len(messages):
        calls = said[-1].calls if said else ()
        end = place + max(1, len(calls))
        if roles[place:end] != (["tool"] * len(calls) or ["user"]):
            break
        told.append(_results(messages, place, end) if calls else Told(_content(messages, place)))
        place = end
        if roles[place : place + 1] == ["assistant"]:
            said.append(_said(messages, place, with_tools=with_tools))
            place += 1
    if place < len(messages) or len(told) != len(said) + 1:
        raise wrong("messages", f"{_ORDER}, got {', '.join(roles[:8])}{', ...' if len(roles) > 8 else ''}")
    return system, tuple(told), tuple(said)


def _role(number: int, message: Any) -> str:
    if not isinstance(message, dict):
        raise wrong(f"messages[{number}]", "an object with role and content")
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise wrong(f"messages[{number}].role", "system, user, assistant or tool", shown(role))
    return "system" if role == "developer" else str(role)


def _said(messages: Sequence[Any], place: int, *, with_tools: bool) -> Said:
    where, message = f"messages[{place}]", messages[place]
    called = message.get("tool_calls") or []
    if message.get("function_call") or not isinstance(called, list):
        raise wrong(f"{where}.tool_calls", "a list of calls")
    if called and not with_tools:
        raise wrong("tools", f"the tools that {where} calls")
    calls = tuple(_call(f"{where}.tool_calls[{number}]", call) for number, call in enumerate(called))
    if calls and message.get("content") is None:
        return Said("", calls)
    return Said(_content(messages, place), calls)


def _call(where: str, value: Any) -> Call:
    function = value.get("function") if isinstance(value, dict) else None
    given = function.get("arguments") if isinstance(function, dict) else None
    call = call_of({**function, "arguments": loaded(given or "{}")}) if isinstance(given, str) and function else None
    if call is None or not isinstance(value.get("id"), str) or not is_unicode(call.written()):
        raise wrong(where, "an object with id and a function, whose arguments are a JSON object as text")
    return call


def _results(messages: Sequence[Any], start: int, end: int) -> Told:
    """The results of the calls of the message before them, in the order of these calls."""
    ids = [call["id"] for call in messages[start - 1]["tool_calls"]]
    found = {str(messages[place].get("tool_call_id")): _content(messages, place) for place in range(start, end)}
    if sorted(found) != sorted(ids):
        raise wrong(f"messages[{start}].tool_call_id", "that of a call before it, each call having one result")
    results = tool_results(*(found[name] for name in ids))
    return Told(results.text, results.results)


def _content(messages: Sequence[Any], place: int) -> str:
    return _text(f"messages[{place}].content", messages[place].get("content"))


def _text(where: str, content: Any) -> str:
    """A text, or the texts of parts, which follow each other."""
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    if not isinstance(content, str):
        raise wrong(where, "a text, or a list of parts of type text")
    if not is_unicode(content):
        raise wrong(where, "Unicode text, without lone surrogates")
    return content
