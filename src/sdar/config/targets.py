"""The objects a configuration may name with ``_target_``: which are allowed, what they take, how they are built."""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sdar.config.ranges import Range
from sdar.config.types import describe, fits
from sdar.errors import UserError

ALLOWED_PREFIXES = ("sdar.", "lightning.", "torch.optim.")
"""A configuration builds objects of these packages only: it is data, and may come from someone else's run folder."""

_DIRECTIVES = frozenset({"_target_", "_partial_"})


def is_node(value: Any) -> bool:
    """Whether a value of the configuration describes an object."""
    return isinstance(value, Mapping) and "_target_" in value


def locate(target: Any, path: str) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names.

    Raises:
        UserError: the name lies outside :data:`ALLOWED_PREFIXES`, or nothing callable has it.
    """
    if not isinstance(target, str) or not target.startswith(ALLOWED_PREFIXES):
        raise UserError(
            f"{path}._target_={target}: only objects of {_listed(p.rstrip('.') for p in ALLOWED_PREFIXES)} can be named"
        )
    found = _imported(target, path)
    if not callable(found):
        raise UserError(f"{path}._target_={target}: allowed is the name of a class or a function")
    return typing.cast("Callable[..., Any]", found)


def _imported(target: str, path: str) -> Any:
    """What a dotted name means: the longest importable module, and attributes below it. None: nothing."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = error.name or module_name
            if module_name == missing or module_name.startswith(f"{missing}."):
                continue
            raise UserError(
                f"{path}._target_={target}: it needs the package {missing!r}, which is not installed"
            ) from error
        for name in parts[cut:]:
            found = getattr(found, name, None)
        return found
    return None


def check_node(
    node: Mapping[str, Any], path: str, *, provided: Iterable[str] = (), ranges: Mapping[str, Range] | None = None
) -> None:
    """Check an object's settings, and those of the objects inside it, against the constructor's own signature.

    ``provided`` names the parameters that the program fills in itself; ``ranges`` holds ranges by full dotted path.

    Raises:
        UserError: an unknown setting, a value of the wrong type or range, or a setting that is missing.
    """
    function = locate(node["_target_"], path)
    settings = {name: value for name, value in node.items() if name not in _DIRECTIVES}
    check_arguments(function, settings, path, provided=provided, partial=bool(node.get("_partial_")), ranges=ranges)


def check_kind(node: Mapping[str, Any], hint: Any, path: str) -> None:
    """Check that the class a node names is one that an annotation allows. What a function makes is not known before.

    Raises:
        UserError: it is another class of ours, or nothing has the name.
    """
    kinds = _kinds(hint)
    if not kinds or node.get("_partial_"):
        return
    found = locate(node["_target_"], path)
    if inspect.isclass(found) and not issubclass(found, kinds):
        allowed = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
        raise UserError(f"{path}._target_={node['_target_']}: allowed is {allowed}, or a class made from it")


def _kinds(hint: Any) -> tuple[type, ...]:
    """Our own classes that an annotation asks for; empty where it also takes something else."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = [option for option in (typing.get_args(hint) if union else (hint,)) if option is not type(None)]
    ours = all(
        inspect.isclass(option) and option.__module__.startswith("sdar.") and not getattr(option, "_is_protocol", False)
        for option in options
    )
    return tuple(options) if ours else ()


def check_arguments(
    function: Callable[..., Any],
    settings: Mapping[str, Any],
    path: str,
    *,
    provided: Iterable[str] = (),
    partial: bool = False,
    deep: bool = True,
    ranges: Mapping[str, Range] | None = None,
) -> None:
    """Check settings against the parameters of a function or class; see :func:`check_node`.

    ``partial``: settings may be missing. ``deep``: the objects inside are checked, too.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in set(provided)
    }
    hints = _hints(function)
    for name, value in settings.items():
        full = f"{path}.{name}" if path else str(name)
        if name not in parameters:
            raise UserError(_unknown_setting(function, full, value, list(parameters), path))
        hint = hints.get(name, Any)
        allowed = (ranges or {}).get(full)
        if is_node(value):
            check_kind(value, hint, full)
            if deep:
                check_node(value, full, ranges=ranges)
        elif isinstance(value, Mapping) and _kinds(hint):
            raise UserError(f"{full}={shown(value)}: it has no _target_, so nothing can be built from it")
        elif not fits(value, hint) or (
            allowed is not None and isinstance(value, int | float) and not allowed.contains(value)
        ):
            raise UserError(f"{full}={shown(value)}: allowed is {describe(hint, allowed)}")
        elif deep and isinstance(value, Mapping | list):
            _check_inside(value, full, ranges)
    if not partial:
        for name, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and name not in settings:
                full = f"{path}.{name}" if path else name
                raise UserError(f"{full} is missing: allowed is {describe(hints.get(name, Any))}")


def _check_inside(value: Any, path: str, ranges: Mapping[str, Range] | None) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, item in items:
        if is_node(item):
            check_node(item, f"{path}.{name}", ranges=ranges)
        elif isinstance(item, Mapping | list):
            _check_inside(item, f"{path}.{name}", ranges)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    owner: Any = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except NameError:
        # Names imported for the type checker alone: the other annotations still count.
        return {name: _hint(owner, annotation) for name, annotation in owner.__annotations__.items()}


def _hint(owner: Any, annotation: Any) -> Any:
    holder = types.SimpleNamespace(__annotations__={"hint": annotation})
    try:
        return typing.get_type_hints(holder, globalns=owner.__globals__, include_extras=True)["hint"]
    except NameError:
        return Any


_LIST_AT_MOST = 24


def _unknown_setting(function: Callable[..., Any], full: str, value: Any, allowed: list[str], path: str) -> str:
    """The sentence about a setting that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(full.rpartition(".")[2], allowed, n=1)
    prefix = f"{path}." if path else ""
    hint = f"did you mean {prefix}{near[0]}? " if near else ""
    where = f"under {path}" if path else "at the top"
    if len(allowed) > _LIST_AT_MOST:
        known = f"the {len(allowed)} arguments of {function.__module__}.{getattr(function, '__qualname__', function)}"
    else:
        known = _listed(sorted(allowed)) or "nothing"
    return f"{full}={shown(value)}: there is no such setting; {hint}Allowed {where}: {known}"


def shown(value: Any) -> str:
    """A value as a user would type it, cut to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
