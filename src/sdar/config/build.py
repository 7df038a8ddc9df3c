"""Building the objects that a checked configuration describes."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from sdar.config.check import DIRECTIVES, defined, is_node, kinds, plain_source
from sdar.config.signatures import Source, signature
from sdar.errors import UserError


def build(node: Mapping[str, Any], path: str, *, later: Collection[str] = (), **provided: Any) -> Any:
    """The object of a node, the objects inside it built first.

    ``provided`` are arguments that the program fills in; ``path`` names the node in messages. ``later`` names settings
    whose objects are expensive: they are handed over as functions that build them. A node with ``_partial_: true``
    gives a function that takes the rest of the arguments.

    Raises:
        UserError: the constructor refused its arguments; its own reason is in the message.
    """
    source = defined(node["_target_"], path)
    function = locate(source, path)
    arguments = _arguments(source, node, path, later)
    if node.get("_partial_"):
        return functools.partial(function, **arguments, **provided)
    try:
        return function(**arguments, **provided)
    except UserError:
        raise
    except Exception as error:
        # Our own constructors say UserError where the user is wrong, so anything else from them is a defect of ours.
        if source.dotted.startswith("sdar."):
            raise
        raise UserError(f"{path} cannot be built: {' '.join(str(error).split())}") from error


def build_settings(cls: type, settings: Mapping[str, Any], path: str) -> Any:
    """An object of a dataclass of settings, from a mapping of its fields without ``_target_``."""
    return build({"_target_": f"{cls.__module__}.{cls.__qualname__}", **settings}, path)


def locate(source: Source, path: str) -> Callable[..., Any]:
    """Import what a source defines.

    Raises:
        UserError: it needs a package that is not installed.
    """
    try:
        found: Any = importlib.import_module(source.module.name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}._target_={source.dotted} needs the package {error.name!r}, which is not installed"
        ) from error
    for name in source.qualname.split("."):
        found = getattr(found, name)
    return cast("Callable[..., Any]", found)


def _arguments(source: Source, node: Mapping[str, Any], path: str, later: Collection[str]) -> dict[str, Any]:
    parameters = signature(source).parameters
    arguments: dict[str, Any] = {}
    for name, value in node.items():
        full = f"{path}.{name}"
        if name in DIRECTIVES:
            continue
        if name in later and is_node(value):
            arguments[name] = functools.partial(build, value, full)
        elif isinstance(value, Mapping) and not is_node(value) and name in parameters and kinds(parameters[name].hint):
            dotted = plain_source(parameters[name].hint, value, full).dotted
            arguments[name] = build({"_target_": dotted, **value}, full)
        else:
            arguments[name] = _inside(value, full)
    return arguments


def _inside(value: Any, path: str) -> Any:
    if is_node(value):
        return build(value, path)
    if isinstance(value, Mapping):
        return {name: _inside(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_inside(item, f"{path}.{i}") for i, item in enumerate(value)]
    return value
