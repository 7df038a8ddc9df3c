"""The form in which a model writes calls of tools, and its translation into the one that environments read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdar.environments.tools import CLOSE, JSON, OPEN, Call, call_of, loaded

_PYTHON_TAG = "<|python_tag|>"
"""Llama may write it in front of a call."""
_THOUGHT_ENDS = "</think>"
_BETWEEN = re.compile(r"[\s,;\[\]]*")
"""What stands around the calls of a list, as some templates and models write several."""


@dataclass(frozen=True)
class CallForm:
    """A call is a JSON object between two texts; without them, a response that begins with one is nothing but calls.

    ``name`` and ``arguments`` are the names of the object's entries.
    """

    open: str
    close: str
    name: str
    arguments: str

    @classmethod
    def found_in(cls, shown: str, name: str, arguments: dict[str, Any]) -> CallForm | None:
        """The form of the call of ``name`` with ``arguments`` that a template has shown; None: none that is known."""
        for start in (place for place, letter in enumerate(shown) if letter == "{"):
            try:
                value, end = json.JSONDecoder().raw_decode(shown, start)
            except ValueError:
                continue
            names = [key for key, entry in value.items() if entry == name]
            given = [key for key, entry in value.items() if arguments in (entry, _unpacked(entry))]
            if names and given:
                opened, closed = shown[:start].strip().rstrip("[ \n"), shown[end:].strip().lstrip("] \n")
                return cls(opened, closed, names[0], given[0])
        return None

    def pieces(self, calls: Sequence[Call]) -> tuple[str, ...]:
        """Calls as the model writes them: texts of the form, and between each two of them the JSON of a call."""
        opened, closed = (f"{self.open}\n", f"\n{self.close}") if self.close else (self.open, "")
        objects = [json.dumps({self.name: c.name, self.arguments: c.arguments}, ensure_ascii=False) for c in calls]
        found = [opened]
        for text in objects:
            found += [text, f"{closed}\n{opened}"]
        return (*found[:-1], closed)

    def canonical(self, response: str) -> str:
        """The response with its calls as :meth:`sdar.environments.tools.Call.written` writes them.

        What looks like a call and cannot be read as one still does so afterwards, and still cannot. A thought is left
        as it is.
        """
        if self == DESCRIBED:
            return response
        thought, end, said = response.rpartition(_THOUGHT_ENDS)
        return thought + end + (self._tagged(said) if self.open else self._bare(said))

    def _tagged(self, said: str) -> str:
        before, *regions = said.split(self.open)
        return before + "\n".join(map(self._region, regions))

    def _region(self, region: str) -> str:
        """What follows an opening text, up to the next one."""
        calls, rest = self._read(region)
        if calls and (rest.startswith(self.close) if self.close else not rest):
            return _written(calls) + rest[len(self.close) :]
        inside, _, rest = region.partition(self.close) if self.close else (region, "", "")
        return _unread(inside) + rest

    def _bare(self, said: str) -> str:
        before, tag, code = said.partition(_PYTHON_TAG)
        text = code if tag else said
        begins = rf'\s*(?:\[\s*)?\{{\s*("type"\s*:\s*"function"\s*,\s*)?"{re.escape(self.name)}"\s*:'
        if not tag and re.match(begins, text) is None:
            return said
        calls, rest = self._read(text)
        called = _written(calls) if calls and not rest else _unread(text)
        return f"{before}{called}" if tag else called

    def _read(self, text: str) -> tuple[list[Call], str]:
        """The calls that a text begins with, and the rest of it."""
        calls: list[Call] = []
        place = 0
        while True:
            place = _end(_BETWEEN.match(text, place))
            try:
                value, end = JSON.raw_decode(text, place)
            except (ValueError, RecursionError):
                return calls, text[place:]
            call = self._call(value)
            if call is None:
                return calls, text[place:]
            calls.append(call)
            place = end

    def _call(self, value: Any) -> Call | None:
        if not isinstance(value, dict):
            return None
        entry = self.arguments if self.arguments in value else "arguments"
        return call_of({**value, entry: _unpacked(value.get(entry, {}))}, self.name, entry)


DESCRIBED = CallForm(OPEN, CLOSE, "name", "arguments")
"""That of the text which describes tools to a model whose template has none."""


def _unpacked(value: Any) -> Any:
    """Arguments that are JSON in a text, as OpenAI has them."""
    return loaded(value) if isinstance(value, str) else value


def _end(found: re.Match[str] | None) -> int:
    assert found is not None  # the pattern matches nothing, too
    return found.end()


def _unread(text: str) -> str:
    """What is no call in the model's form, as what is none in the environments' form."""
    return f"{OPEN}{text}{CLOSE}" if call_of(loaded(text)) is None else f"{OPEN}[{text}]{CLOSE}"


def _written(calls: list[Call]) -> str:
    return "\n".join(call.written() for call in calls)
