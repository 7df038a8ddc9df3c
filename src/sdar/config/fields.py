"""Types and ranges of settings, enforced by pydantic the same from a configuration file and from Python.

A range stands on the field or parameter that owns it, as in ``beta: Annotated[float, Ge(0)]``. Types are strict: a
whole number is a float, but true and "3" are no numbers, and numbers that are not finite fit nothing; nor do numbers
over 2**32, and texts of more than 10,000 letters or with control characters.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import typing
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, PydanticUserError, Strict, TypeAdapter, ValidationError

from sdar.config.words import describe, is_usable, shown
from sdar.errors import UserError

__all__ = [
    "AtLeastOne",
    "BelowOne",
    "Count",
    "Fraction",
    "Lax",
    "NotNegative",
    "Positive",
    "TaskCount",
    "Temperature",
    "checked",
    "fits",
    "settings",
]

AtLeastOne = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
TaskCount = Annotated[int, Ge(1), Le(100_000)]
"""How many tasks are generated for a split: each is kept in memory."""
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
"""In [0, 1)."""
Temperature = Annotated[float, Ge(0), Le(0)] | Annotated[float, Ge(0.01), Le(100)]
"""0 is greedy; below 0.01 the other logits say nothing, and above 100 no logit does."""
Lax = Strict(False)
"""For a field of tuples or of an enumeration, which a file gives as a list or a text."""

_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

C = TypeVar("C", bound=Callable[..., Any])

if TYPE_CHECKING:
    from dataclasses import dataclass as settings
else:

    def settings(cls: type | None = None, /, **options: Any) -> Any:
        """``dataclasses.dataclass`` whose fields are checked at construction; UserError for the first mistake."""
        if cls is None:
            return functools.partial(settings, **options)
        import pydantic.dataclasses  # only where settings are defined: refusing a misspelt name needs no more

        made = pydantic.dataclasses.dataclass(cls, config=_CONFIG, **options)
        construct = made.__init__

        @functools.wraps(construct)
        def checked_init(self: Any, *args: Any, **fields: Any) -> None:
            try:
                _check_magnitudes(type(self), args, fields)
                construct(self, *args, **fields)
            except ValidationError as error:
                raise UserError(_mistake(type(self), error)) from None

        made.__init__ = checked_init
        return made


def _check_magnitudes(cls: type, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    for name, value in (*zip(names, args, strict=False), *fields.items()):
        if name in names and not is_usable(value):
            hint = typing.get_type_hints(cls, include_extras=True)[name]
            raise UserError(f"{cls.__name__}.{name} must be {describe(hint)}, got {shown(value)}")


def _mistake(cls: type, error: ValidationError) -> str:
    """The first mistake of a constructor in one sentence."""
    first = error.errors()[0]
    place = first["loc"][0] if first["loc"] else ""
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    name = names[place] if isinstance(place, int) and place < len(names) else place
    if name not in names:
        return f"{cls.__name__} has no setting {name}; it takes {', '.join(names)}"
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return f"{cls.__name__}.{name} is missing"
    hint = typing.get_type_hints(cls, include_extras=True)[name]
    return f"{cls.__name__}.{name} must be {describe(hint)}, got {shown(first['input'])}"


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may be given to what is annotated ``hint``. Objects fit no annotation of plain values."""
    if not is_usable(value):
        return False
    try:
        _adapter(hint).validate_json(json.dumps(value, default=os.fspath))
    except (ValidationError, PydanticUserError, TypeError, ValueError, RecursionError):
        return False
    return True


_adapters: dict[str, TypeAdapter[Any]] = {}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    key = repr(hint)
    if key not in _adapters:
        _adapters[key] = TypeAdapter(hint, config=_CONFIG)
    return _adapters[key]


def checked(function: C) -> C:
    """Check the plain arguments of a constructor or function against its annotations at every call.

    Arguments that are objects are left to mypy and to the constructor. UserError for the first mistake.
    """
    signature = inspect.signature(function)
    owner = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def wrapped(*args: Any, **arguments: Any) -> Any:
        for name, value in signature.bind(*args, **arguments).arguments.items():
            hint = _plain_hints(function).get(name)
            if hint is not None and not fits(value, hint):
                raise UserError(f"{owner}: {name} must be {describe(hint)}, got {shown(value)}")
        return function(*args, **arguments)

    return typing.cast("C", wrapped)


@functools.cache
def _plain_hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return" and _is_plain(hint)}


def _is_plain(hint: Any) -> bool:
    """Whether an annotation names nothing but what a configuration file can spell."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return True
    if origin is Annotated:
        return _is_plain(hint.__origin__)
    if origin is not None:
        return all(_is_plain(argument) for argument in typing.get_args(hint) if argument is not Ellipsis)
    return hint in (int, float, str, bool, None, type(None), Path) or (
        isinstance(hint, type) and issubclass(hint, Enum)
    )
