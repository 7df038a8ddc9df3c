"""Annotations and values in the words of an error message."""

from __future__ import annotations

import collections.abc
import math
import re
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from sdar.config.signatures import Kind, find

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    None: "null",
    type(None): "null",
    Any: "anything",
}
_PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}
_BOUNDS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}


def describe(hint: Any) -> str:
    """What an annotation allows: "a whole number >= 1", "'append' or 'window'", "a number >= 0 or null"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        known = [(_BOUNDS[type(extra)], extra) for extra in arguments[1:] if type(extra) in _BOUNDS]
        limits = [_plain(getattr(extra, name)) for (_, name), extra in known]
        bounds = [f"{sign} {limit}" for ((sign, _), _), limit in zip(known, limits, strict=True)]
        if len(limits) == 2 and limits[0] == limits[1]:
            return limits[0]
        inner, null, _ = describe(arguments[0]).partition(" or null")
        return f"{inner} {' and '.join(bounds)}{null}" if bounds else f"{inner}{null}"
    if origin in (Union, types.UnionType):
        options = list(dict.fromkeys(describe(argument) for argument in arguments if argument is not type(None)))
        plain = [option for option in options if not option.startswith("an object")] or options
        return " or ".join(plain + (["null"] if type(None) in arguments else []))
    if origin is Literal:
        return " or ".join(repr(option) for option in arguments)
    if hint in _WORDS:
        return _WORDS[hint]
    kind = origin or hint
    if kind in (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection):
        item = describe(arguments[0]) if arguments else ""
        count = f"{len(arguments)} " if kind is tuple and arguments and arguments[-1] is not Ellipsis else ""
        many = next((item.replace(one, several, 1) for one, several in _PLURALS.items() if item.startswith(one)), None)
        return f"a list of {count}{many}" if many else "a list"
    if kind in (dict, collections.abc.Mapping):
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(repr(member.value) for member in kind)
    mapping = isinstance(kind, Kind) and (source := find(kind.dotted)) is not None and source.is_settings
    return f"{'a mapping' if mapping else 'an object'} ({getattr(kind, '__name__', kind)})"


def _plain(limit: Any) -> str:
    """1.0 as 1: ``typing`` holds Gt(1) and Gt(1.0) for equal and hands out whichever was written first."""
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)


def shown(value: Any) -> str:
    """A value as an error message shows it: short, texts in quotes, null and true as a configuration spells them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping) and "_target_" in value:
        return f"{{_target_: {shown(value['_target_'])[:80]}, ...}}"
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    if isinstance(value, int | float) and not is_usable(value) and abs(value) < math.inf:
        text += f", which is over {LARGEST}"
    elif isinstance(value, str) and not is_usable(value):
        text += f", which has {len(value)} letters" if len(value) > LONGEST_TEXT else ", which has control characters"
    return text


LARGEST = 2**32
"""Beyond it a number means nothing as a setting."""


LONGEST_TEXT = 10_000
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Without tab and line feed."""


def is_usable(value: Any) -> bool:
    """Whether the numbers in a plain value have a magnitude, and the texts a length, that a setting can have."""
    if isinstance(value, Mapping):
        return all(map(is_usable, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_usable, value))
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and not _CONTROLS.search(value)
    return not isinstance(value, int | float) or abs(value) <= LARGEST
