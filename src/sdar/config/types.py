"""Whether a value from a configuration file fits a type annotation, and the annotation in words."""

from __future__ import annotations

import collections.abc
import math
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from sdar.config.ranges import Range

_SEQUENCES = (
    list,
    tuple,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def fits(value: Any, hint: Any) -> bool:
    """Whether ``value``, as YAML gives it, can be handed to a parameter annotated ``hint``.

    Whole numbers fit ``float``, texts fit ``Path``, lists fit tuples. true and false are no numbers, and numbers that
    are not finite fit nothing: no setting means them. Annotations that say nothing checkable (``Any``, type
    variables, classes that a configuration cannot spell) accept a mapping or an object and refuse plain values.
    """
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = [extra for extra in arguments[1:] if isinstance(extra, Range)]
        return fits(value, arguments[0]) and (value is None or all(r.contains(value) for r in ranges))
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if hint is None or hint is type(None):
        return value is None
    if origin is not None and not isinstance(origin, type):
        return True
    kind = origin or hint
    if kind in _SEQUENCES:
        return _sequence_fits(value, kind, arguments)
    if kind in _MAPPINGS:
        return isinstance(value, Mapping) and (
            len(arguments) != 2 or all(fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items())
        )
    return _plain_fits(value, kind)


def _sequence_fits(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    if kind is tuple and arguments and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(fits(v, a) for v, a in zip(value, arguments, strict=True))
    return not arguments or all(fits(item, arguments[0]) for item in value)


def _plain_fits(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if kind is Path:
        return isinstance(value, str | Path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value in [member.value for member in kind] or isinstance(value, kind)
    # an object: the configuration describes it by a mapping with _target_, or it has been built already
    return not isinstance(value, str | int | float | bool | list | tuple | types.NoneType)


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


def describe(hint: Any, within: Range | None = None) -> str:
    """What an annotation allows, in words: "a whole number", "'append'", "a number at least 0 or null".

    ``within`` is a range that holds beside the annotation's own.
    """
    if within is not None:
        return describe(Annotated[hint, within])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = [extra.describe() for extra in arguments[1:] if isinstance(extra, Range)]
        inner = describe(arguments[0])
        null = inner.endswith(" or null")
        words = " ".join([inner.removesuffix(" or null"), *ranges])
        return f"{words} or null" if null else words
    if origin in (Union, types.UnionType):
        options = list(dict.fromkeys(describe(a) for a in arguments if a is not type(None)))
        plain = [option for option in options if not option.startswith("an object")] or options
        return " or ".join(plain + (["null"] if type(None) in arguments else []))
    if origin is Literal:
        return " or ".join(repr(option) for option in arguments)
    if hint in _WORDS:
        return _WORDS[hint]
    kind = origin or hint
    if kind in _SEQUENCES:
        named = arguments and arguments[0] in (int, str)
        return f"a list of {describe(arguments[0]).removeprefix('a ')}s" if named else "a list"
    if kind in _MAPPINGS:
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(repr(member.value) for member in kind)
    return f"an object ({getattr(kind, '__name__', kind)})"
