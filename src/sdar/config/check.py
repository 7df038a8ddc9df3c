"""Whether settings fit what they are given to: names, types and ranges, before anything is imported or built."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Iterable, Mapping
from types import UnionType
from typing import Any

from sdar.config.fields import fits
from sdar.config.signatures import Kind, Source, find, returned_kind, signature
from sdar.config.words import describe, shown
from sdar.errors import UserError

ALLOWED_PACKAGES = ("sdar", "lightning", "torch.optim")
"""A configuration builds objects that are defined here only: it is data, and may come from someone else's run."""

DIRECTIVES = frozenset({"_target_", "_partial_"})
_LIST_AT_MOST = 24


def is_node(value: Any) -> bool:
    """Whether a value of the configuration describes an object."""
    return isinstance(value, Mapping) and "_target_" in value


def defined(target: Any, path: str) -> Source:
    """The class or function that a ``_target_`` names.

    Raises:
        UserError: it is not defined in :data:`ALLOWED_PACKAGES`, or nothing has the name.
    """
    source = find(target) if isinstance(target, str) and _is_allowed(target) else None
    if source is not None and _is_allowed(source.dotted):
        return source
    if isinstance(target, str) and _is_allowed(target):
        raise UserError(f"{path}._target_={target}: nothing is defined by that name; a class or a function is needed")
    raise UserError(f"{path}._target_={target}: only objects of {', '.join(ALLOWED_PACKAGES)} can be named")


def _is_allowed(dotted: str) -> bool:
    return any(dotted.startswith(f"{package}.") for package in ALLOWED_PACKAGES)


def check_node(node: Mapping[str, Any], path: str, *, provided: Collection[str] = ()) -> None:
    """Check the settings of an object, and of those inside it, against what its class or function takes.

    ``provided`` names the parameters that the program fills in itself.

    Raises:
        UserError: an unknown setting, a value of the wrong type or range, or a setting that is missing.
    """
    source = defined(node["_target_"], path)
    settings = {name: value for name, value in node.items() if name not in DIRECTIVES}
    check_settings(source, settings, path, provided=provided, partial=bool(node.get("_partial_")))


def check_settings(
    source: Source, settings: Mapping[str, Any], path: str, *, provided: Collection[str] = (), partial: bool = False
) -> None:
    """As :func:`check_node`, for the settings alone; ``partial``: some may be missing."""
    taken = signature(source)
    parameters = {name: found for name, found in taken.parameters.items() if name not in provided}
    prefix = f"{path}." if path else ""
    for name, value in settings.items():
        if name not in parameters and (not taken.open or name in provided):
            raise UserError(_unknown(source, f"{prefix}{name}", value, list(parameters), path))
    for name, parameter in parameters.items():
        if name in settings:
            check_value(settings[name], parameter.hint, f"{prefix}{name}")
        elif parameter.required and not partial:
            raise UserError(f"{prefix}{name} is missing; it must be {describe(parameter.hint)}")


def check_value(value: Any, hint: Any, path: str) -> None:
    """Check a value against the annotation of its place; UserError as in :func:`check_node`."""
    if is_node(value):
        check_kind(value, hint, path)
        check_node(value, path)
    elif isinstance(value, Mapping) and kinds(hint):
        check_settings(plain_source(hint, value, path), value, path)
    elif isinstance(value, Mapping | list) and _has_nodes(value):
        for name, item in _items(value):
            check_value(item, _item_hint(hint, value, path), f"{path}.{name}")
    elif not fits(value, hint):
        raise UserError(f"{path} must be {describe(hint)}, got {shown(value)}")


def _items(value: Mapping[str, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _has_nodes(value: Any) -> bool:
    """Whether there are objects inside."""
    if not isinstance(value, Mapping | list):
        return False
    return any(is_node(item) or _has_nodes(item) for _, item in _items(value))


def _item_hint(hint: Any, value: Mapping[str, Any] | list[Any], path: str) -> Any:
    """What an annotation of a container asks of its items; UserError where it is none of this kind."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    for option in options:
        origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
        if origin in (Any, object):
            return Any
        if isinstance(origin, type) and issubclass(type(value), origin):
            return arguments[-1] if arguments else Any
    raise UserError(f"{path} must be {describe(hint)}, got {shown(value)}")


def check_kind(node: Mapping[str, Any], hint: Any, path: str) -> None:
    """Check that an object is of a class that an annotation allows, where it asks for classes of ours.

    Raises:
        UserError: it is of another class.
    """
    allowed = kinds(hint)
    if not allowed or node.get("_partial_"):
        return
    source = defined(node["_target_"], path)
    given = returned_kind(source) if not source.is_class else None
    found = find(given.dotted) if isinstance(given, Kind) else source if source.is_class else None
    if found is not None and not any(found.is_a(kind) for kind in allowed):
        names = " or ".join(kind.dotted for kind in allowed)
        raise UserError(f"{path}._target_={node['_target_']}: it must be {names}, or a class made from it")


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
