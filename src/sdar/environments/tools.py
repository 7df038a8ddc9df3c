"""Calls of tools in responses, and tools as text.

A call is a JSON object in ``<tool_call>``, as Hermes and Qwen write it. Environments read no other form: calls that a
model writes in its own (Llama's, for example) are rewritten before they see them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sdar.environments.tags import Tags
from sdar.episode import Observation, Preface, Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"

HOW_TO_CALL = (
    "You can call tools. A call is a JSON object between <tool_call> and </tool_call>, such as\n"
    '<tool_call>{"name": "NAME", "arguments": {"ARGUMENT": 1}}</tool_call>\n'
    "Its result comes back between <tool_response> and </tool_response>. A response without a call is the last one. "
    "Tools:"
)
_CALL = Tags("tool_call")


@dataclass(frozen=True)
class Call:
    """A call of a tool: its ``name`` and its ``arguments`` by name."""

    name: str
    arguments: Mapping[str, Any]

    def written(self) -> str:
        """The call as environments read it, whatever its texts are."""
        text = json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)
        return f"{OPEN}\n" + text.replace("<", "\\u003c") + f"\n{CLOSE}"


def calls_in(response: str) -> tuple[list[Call], bool]:
    """The calls of a response, in order, and whether all that looks like one is one. What is none is left out."""
    found = [call_of(loaded(text)) for text in _CALL.inside(response)]
    calls = [call for call in found if call is not None]
    return calls, len(calls) == response.count(OPEN) == response.count(CLOSE)


def without_calls(response: str) -> str:
    """What a response says beside its calls."""
    return _CALL.outside(response).strip()


def tool_results(*results: str, anchor: str | None = None) -> Observation:
    """The observation after the calls of a response: what each of them returned.

    ``anchor`` identifies the state; None: the results do.
    """
    text = "\n".join(map(answered, results))
    return Observation(text, None, text if anchor is None else anchor, results=results)


def answered(result: str) -> str:
    """The result of a call as text."""
    return f"<tool_response>\n{result}\n</tool_response>"


def described(tools: Iterable[Tool]) -> str:
    """Tools as text: how to call them, and a line for each; nothing where there are none."""
    lines = [f"- {tool.name} {tool.schema}: {tool.description}".removesuffix(": ") for tool in tools]
    return "\n".join([HOW_TO_CALL, *lines]) if lines else ""


def joined(*parts: str | None) -> str:
    """The parts that have text, a blank line between them."""
    return "\n\n".join(filter(None, parts))


def as_text(preface: Preface) -> str:
    """System message and tools as one text."""
    return joined(preface.system, described(preface.tools))


def _finite(text: str) -> float:
    """ValueError: JSON has no such number, or it is out of the range of floats, and could not be written again."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number must be finite, got {text[:50]}")
    return number


JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
"""Reads what may be passed on as JSON; Python's own reading lets NaN and infinity through."""


def loaded(text: str) -> Any:
    """The value of a JSON text; None: it is none, or has a number that is not finite."""
    try:
        return JSON.decode(text)
    except (ValueError, RecursionError):
        return None


def call_of(value: Any, name: str = "name", arguments: str = "arguments") -> Call | None:
    """The call that a JSON value is, with these names of its two entries; None: it is none."""
    if not isinstance(value, dict) or not isinstance(value.get(name), str):
        return None
    given = value.get(arguments, {})
    return Call(value[name], given) if isinstance(given, dict) else None
