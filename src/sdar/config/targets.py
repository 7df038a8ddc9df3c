"""From the name in a ``_target_`` to the class or function that is defined by it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, cast

from sdar.config.plugins import OWN_PACKAGES, check_importable, is_allowed, is_own
from sdar.config.signatures import Source, find
from sdar.errors import UserError

_SHOWN = 120
"""Letters of a name that a message repeats."""


def defined(target: Any, path: str) -> Source:
    """The class or function that a ``_target_`` names. Nothing is imported for a name in our packages.

    Raises:
        UserError: its definition lies outside the allowed packages, or there is none.
    """
    full = f"{path}._target_={str(target)[:_SHOWN]}"
    if not isinstance(target, str) or not is_allowed(target):
        raise UserError(f"{full}: {_only(target)}")
    if not all(part.isidentifier() for part in target.split(".")):
        raise UserError(f"{full}: it must be the dotted name of a class or a function")
    source = find(target) if is_own(target) else _plugin(target, full)
    if source is None:
        raise UserError(f"{full}: nothing is defined by that name; a class or a function is needed")
    if not is_allowed(source.dotted):
        raise UserError(f"{full}: {_only(source.dotted)}; it is defined as {source.dotted}")
    return source


def _only(target: Any) -> str:
    sentence = f"only objects of {', '.join(OWN_PACKAGES)} can be named"
    package = str(target).partition(".")[0][:_SHOWN]
    if not package.isidentifier() or package in sys.stdlib_module_names or package in OWN_PACKAGES:
        return sentence
    return f"{sentence}; if you trust the package {package}, add --allow {package}"


def _plugin(target: str, full: str) -> Source | None:
    """A definition in a package of the user's, which is imported where its source does not show the name."""
    check_importable(target, full)
    try:
        source = find(target)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{full}: its source cannot be read: {' '.join(str(error).split())}") from error
    if source is not None:
        return source
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return None
        raise UserError(_broken(full, module, error)) from error
    except (Exception, SystemExit) as error:
        raise UserError(_broken(full, module, error)) from error
    return find(f"{found.__module__}.{found.__qualname__}") if inspect.isclass(found) else None


def locate(source: Source, path: str) -> Callable[..., Any]:
    """Import what a source defines.

    Raises:
        UserError: it needs a package that is not installed, or the module has something else by that name.
    """
    full = f"{path}._target_={source.dotted}"
    try:
        found: Any = importlib.import_module(source.module.name)
        for name in source.qualname.split("."):
            found = getattr(found, name)
    except ModuleNotFoundError as error:
        raise UserError(f"{full} needs the package {error.name!r}, which is not installed") from error
    except (Exception, SystemExit) as error:
        if is_own(source.dotted):
            raise
        raise UserError(_broken(full, source.module.name, error)) from error
    # What was read must be what is built: a module may bind a name more than once.
    if is_own(source.dotted) and f"{found.__module__}.{found.__qualname__}" != source.dotted:
        raise UserError(f"{full}: {source.module.name} has another object by that name")
    return cast("Callable[..., Any]", found)


def _broken(full: str, module: str, error: BaseException) -> str:
    return f"{full}: {module} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
