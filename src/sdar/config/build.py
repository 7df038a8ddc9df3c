"""Building the objects that a checked configuration describes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from sdar.config.check import has_nodes, is_node, item_hint, kinds, plain_source
from sdar.config.kinds import check_kind
from sdar.config.signatures import Kind, Source, signature
from sdar.config.targets import locate
from sdar.errors import INTERRUPTS, UserError, words_of


def build(node: Mapping[str, Any], path: str, *, place: Any = Any, later: Collection[str] = (), **provided: Any) -> Any:
    """The object of a node, the objects inside it built first.

    ``provided`` are arguments that the program fills in; ``path`` names the node in messages. ``place`` is the
    annotation of where it goes (:mod:`sdar.config.kinds`): also what was never checked builds nothing but objects of
    the known kinds. ``later`` names settings whose objects are expensive: they are handed over as functions that build
    them.

    Raises:
        UserError: it may not be built here, or the constructor refused its arguments; its reason is in the message.
    """
    source = check_kind(node, place, path)
    function = locate(source, path)
    if inspect.isabstract(function):
        raise UserError(f"{path}._target_={node['_target_']}: the class is abstract; it must be one made from it")
    arguments = _arguments(source, node, path, later)
    try:
        return function(**arguments, **provided)
    except UserError:
        raise
    except INTERRUPTS:
        raise
    except BaseException as error:
        # Our own constructors say UserError where the user is wrong, so anything else from them is a defect of ours.
        if source.dotted.startswith("sdar."):
            raise
        reason = (
            "its constructor calls sys.exit" if isinstance(error, SystemExit) else " ".join(words_of(error).split())
        )
        raise UserError(f"{path} cannot be built: {reason or type(error).__name__}") from error


def build_settings(cls: type, settings: Mapping[str, Any], path: str) -> Any:
    """An object of a dataclass of settings, from a mapping of its fields without ``_target_``."""
    dotted = f"{cls.__module__}.{cls.__qualname__}"
    return build({"_target_": dotted, **settings}, path, place=Kind(cls.__name__, (), {"dotted": dotted}))


def _arguments(source: Source, node: Mapping[str, Any], path: str, later: Collection[str]) -> dict[str, Any]:
    parameters = signature(source).parameters
    arguments: dict[str, Any] = {}
    for name, value in node.items():
        full = f"{path}.{name}"
        if name == "_target_":
            continue
        hint = parameters[name].hint if name in parameters else Any
        if name in later and is_node(value):
            arguments[name] = functools.partial(build, value, full, place=hint)
        elif isinstance(value, Mapping) and not is_node(value) and kinds(hint):
            dotted = plain_source(hint, value, full).dotted
            arguments[name] = build({"_target_": dotted, **value}, full, place=hint)
        else:
            arguments[name] = _inside(value, hint, full)
    return arguments


def _inside(value: Any, hint: Any, path: str) -> Any:
    if is_node(value):
        return build(value, path, place=hint)
    if not has_nodes(value):
        return value
    inner = item_hint(hint, value, path)
    if isinstance(value, Mapping):
        return {name: _inside(item, inner, f"{path}.{name}") for name, item in value.items()}
    return [_inside(item, inner, f"{path}.{i}") for i, item in enumerate(value)]
