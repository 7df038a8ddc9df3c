"""Whether a record has the shape that its readers rely on: it may be damaged, or somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Shape = Callable[[Any], bool]

_MOST = 2**53
"""Above it, numbers are neither counts nor seconds, and the arithmetic on them overflows."""


def is_text(value: Any) -> bool:
    """One line that a terminal shows as it is: without controls, line breaks and lone surrogates."""
    return isinstance(value, str) and value.isprintable()


def is_number(value: Any) -> bool:
    """A number >= 0, neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST


def is_count(value: Any) -> bool:
    """An integer >= 0."""
    return isinstance(value, int) and is_number(value)


def is_path(value: Any) -> bool:
    """A path, which may have bytes that are no text."""
    return isinstance(value, str) and value != "" and "\0" not in value


def is_code(value: Any) -> bool:
    """The exit code of a process."""
    return isinstance(value, int) and not isinstance(value, bool) and is_number(abs(value))


def is_bool(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def maybe(shape: Shape) -> Shape:
    """Null, or missing, or the shape."""
    return lambda value: value is None or shape(value)


def list_of(shape: Shape) -> Shape:
    """A list of any length."""
    return lambda value: isinstance(value, list) and all(map(shape, value))


def mapping_of(shape: Shape) -> Shape:
    """A mapping from texts to values of one shape."""
    return lambda value: isinstance(value, Mapping) and all(map(is_text, value)) and all(map(shape, value.values()))


def record_of(**shapes: Shape) -> Shape:
    """A mapping with these entries, and any others."""
    return lambda value: isinstance(value, Mapping) and all(shape(value.get(name)) for name, shape in shapes.items())
