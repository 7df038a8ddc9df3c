"""Whether settings fit what they are given to: names, types and ranges, before anything is imported or built."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any

from sdar.config.fields import fits
from sdar.config.kinds import check_kind
from sdar.config.signatures import Kind, Source, find, signature
from sdar.config.words import describe, shown
from sdar.errors import UserError

_LIST_AT_MOST = 24


def is_node(value: Any) -> bool:
    """Whether a value of the configuration describes an object."""
    return isinstance(value, Mapping) and "_target_" in value


def check_node(node: Mapping[str, Any], hint: Any, path: str) -> None:
    """Check that an object is of a class that its place takes, and its settings against what that class takes.

    Raises:
        UserError: another class, an unknown setting, a value of the wrong type or range, or a setting that is missing.
    """
    source = check_kind(node, hint, path)
    check_settings(source, {name: value for name, value in node.items() if name != "_target_"}, path)


def check_settings(source: Source, settings: Mapping[str, Any], path: str) -> None:
    """As :func:`check_node`, for the settings alone."""
    taken = signature(source)
    parameters = taken.parameters
    prefix = f"{path}." if path else ""
    for name, value in settings.items():
        if name not in parameters and not taken.open:
            raise UserError(_unknown(source, f"{prefix}{name}", value, list(parameters), path))
        check_value(value, parameters[name].hint if name in parameters else Any, f"{prefix}{name}")
    for name, parameter in parameters.items():
        if parameter.required and name not in settings:
            raise UserError(f"{prefix}{name} is missing; it must be {describe(parameter.hint)}")


def check_value(value: Any, hint: Any, path: str) -> None:
    """Check a value against the annotation of its place; UserError as in :func:`check_node`."""
    if is_node(value):
        check_node(value, hint, path)
    elif isinstance(value, Mapping) and kinds(hint):
        check_settings(plain_source(hint, value, path), value, path)
    elif isinstance(value, Mapping | list) and has_nodes(value):
        for name, item in _items(value):
            check_value(item, item_hint(hint, value, path), f"{path}.{name}")
    elif not fits(value, hint):
        raise UserError(f"{path} must be {describe(hint)}, got {shown(value)}")


def _items(value: Mapping[str, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def has_nodes(value: Any) -> bool:
    """Whether there are objects inside."""
    if not isinstance(value, Mapping | list):
        return False
    return any(is_node(item) or has_nodes(item) for _, item in _items(value))


def item_hint(hint: Any, value: Mapping[str, Any] | list[Any], path: str) -> Any:
    """What an annotation of a container asks of its items; UserError where it is none of this kind."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    for option in options:
        origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
        if origin in (Any, object):
            return Any
        if isinstance(origin, type) and issubclass(type(value), origin):
            return arguments[-1] if arguments else Any
    raise UserError(f"{path} must be {describe(hint)}, got {shown(value)}")


def kinds(hint: Any) -> list[Kind]:
    """The classes of ours that an annotation asks for; [] where it also takes others, or anything of their shape."""
    union = typing.get_origin(hint) in (typing.Union, UnionType)
    options = [one for one in (typing.get_args(hint) if union else (hint,)) if one is not type(None)]
    found = [(one, find(one.dotted)) for one in options if isinstance(one, Kind) and one.dotted.startswith("sdar.")]
    ours = [kind for kind, source in found if source is not None and not source.is_protocol]
    return ours if len(ours) == len(options) else []


def plain_source(hint: Any, value: Any, path: str) -> Source:
    """The dataclass of settings that a mapping without ``_target_`` describes.

    Raises:
        UserError: there are several, or they have to be named.
    """
    sources = [source for kind in kinds(hint) if (source := find(kind.dotted)) is not None and source.is_settings]
    if len(sources) != 1:
        raise UserError(f"{path}={shown(value)}: it has no _target_, so nothing can be built from it")
    return sources[0]


def _unknown(source: Source, full: str, value: Any, allowed: list[str], path: str) -> str:
    """The sentence about a setting that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(full.rpartition(".")[2], allowed, n=1)
    prefix = f"{path}." if path else ""
    hint = f"did you mean {prefix}{near[0]}? " if near else ""
    where = f"under {path}" if path else "at the top"
    many = len(allowed) > _LIST_AT_MOST
    known = f"the {len(allowed)} arguments of {source.dotted}" if many else ", ".join(sorted(allowed)) or "nothing"
    return f"{full}={shown(value)}: there is no such setting; {hint}Allowed {where}: {known}"
