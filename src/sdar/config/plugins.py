"""Packages whose objects a configuration may name: ours, and those that the user trusts."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sdar.errors import UserError

OWN_PACKAGES = ("sdar", "lightning", "torch.optim")
ENTRY_POINTS = "sdar.plugins"
"""The group in which an installed distribution names its package, which then needs no ``--allow``."""

_VARIABLE = "SDAR_ALLOW"
"""Takes the user's word to the processes that a run starts."""

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def is_own(dotted: str) -> bool:
    """Whether a name lies in :data:`OWN_PACKAGES`."""
    return _lies_in(dotted, OWN_PACKAGES)


def is_allowed(dotted: str) -> bool:
    """Whether a name lies in a package of ours, in one that the user allowed, or in an installed plug-in."""
    return is_own(dotted) or _lies_in(dotted, given()) or _lies_in(dotted, _installed(tuple(sys.path)))


def is_allowed_model(name: str) -> bool:
    """Whether the user allowed the model of that name or in that folder, whose own code may then be run."""
    return any(word == name or _is_same_folder(word, name) for word in given())


def given() -> tuple[str, ...]:
    """The packages, and the models with code of their own, that the user allowed by ``--allow``."""
    return tuple(filter(None, os.environ.get(_VARIABLE, "").split(",")))


@contextmanager
def allowing(packages: Sequence[str]) -> Iterator[None]:
    """Allow packages in this process and in those that it starts, until the end of the block.

    A word with a slash allows a model (:func:`is_allowed_model`): a name of the Hub or a folder.

    Raises:
        UserError: neither the name of a package that is there, nor of a model.
    """
    for package in packages:
        if "," not in package and (_HUB_NAME.fullmatch(package) or ("/" in package and _is_model_folder(package))):
            continue
        if not all(part.isidentifier() for part in package.split(".")):
            raise UserError(
                "--allow must be the name of a package, as in --allow mypkg, or of a model with code of its own, as in "
                f"--allow owner/model or --allow ./folder, got {package}"
            )
        check_importable(package, f"--allow {package}")
    before = os.environ.get(_VARIABLE)
    if packages:
        os.environ[_VARIABLE] = ",".join(dict.fromkeys([*given(), *packages]))
    try:
        yield
    finally:
        if packages:
            os.environ.pop(_VARIABLE)
            os.environ.update({} if before is None else {_VARIABLE: before})


def check_importable(dotted: str, setting: str) -> None:
    """Refuse a name in a package that Python does not find. Imports nothing."""
    package = dotted.partition(".")[0]
    try:
        found = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise UserError(f"{setting}: there is no package {package}; install it, or name its folder in PYTHONPATH")


@cache
def _installed(path: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG001 - what is installed depends on it
    """The packages of installed plug-ins. Looks at every distribution, so it is asked only about names outside ours."""
    from importlib.metadata import entry_points

    return tuple(sorted({one.value.partition(":")[0].strip() for one in entry_points(group=ENTRY_POINTS)}))


def _is_model_folder(name: str) -> bool:
    return os.path.isfile(os.path.join(name, "config.json"))  # noqa: PTH113, PTH118 - false for any text


def _is_same_folder(one: str, other: str) -> bool:
    return _is_model_folder(one) and _is_model_folder(other) and Path(one).samefile(other)


def _lies_in(dotted: str, packages: Sequence[str]) -> bool:
    return any(dotted.startswith(f"{package}.") for package in packages)
