"""Packages whose objects a configuration may name: ours, and those that the user trusts."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from sdar.errors import UserError

OWN_PACKAGES = ("sdar", "lightning", "torch.optim")
ENTRY_POINTS = "sdar.plugins"
"""The group in which an installed distribution names its package, which then needs no ``--allow``."""

_VARIABLE = "SDAR_ALLOW"
"""Takes the user's word to the processes that a run starts."""


def is_own(dotted: str) -> bool:
    """Whether a name lies in :data:`OWN_PACKAGES`."""
    return _lies_in(dotted, OWN_PACKAGES)


def is_allowed(dotted: str) -> bool:
    """Whether a name lies in a package of ours, in one that the user allowed, or in an installed plug-in."""
    return is_own(dotted) or _lies_in(dotted, given()) or _lies_in(dotted, _installed(tuple(sys.path)))


def given() -> tuple[str, ...]:
    """The packages that the user allowed by ``--allow``."""
    return tuple(filter(None, os.environ.get(_VARIABLE, "").split(",")))


@contextmanager
def allowing(packages: Sequence[str]) -> Iterator[None]:
    """Allow packages in this process and in those that it starts, until the end of the block.

    Raises:
        UserError: not the name of a package, or of one that is not there.
    """
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")):
            raise UserError(f"--allow must be the name of a package, as in --allow mypkg, got {package}")
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


def _lies_in(dotted: str, packages: Sequence[str]) -> bool:
    return any(dotted.startswith(f"{package}.") for package in packages)
