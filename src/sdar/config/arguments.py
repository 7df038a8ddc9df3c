"""Settings of small commands, given as ``name=value``; a path is what stands behind the first ``=``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sdar.config.check import check_settings
from sdar.config.paths import at_home, check_paths, is_path
from sdar.config.signatures import find
from sdar.errors import UserError


def named_values(arguments: Sequence[str], settings_class: str) -> dict[str, Any]:
    """The settings of a command line for a class, which is named by its dotted path.

    Raises:
        UserError: an argument is not ``name=value``, or the class has no such setting or refuses its value.
    """
    paths = dict(path for argument in arguments if (path := _path(argument)) is not None)
    others = [argument for argument in arguments if _path(argument) is None]
    try:
        given = OmegaConf.to_container(OmegaConf.from_cli(others), resolve=True)
    except (OmegaConfBaseException, YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"the arguments must be name=value, got {' '.join(arguments)}") from error
    assert isinstance(given, dict)
    values = {str(name): value for name, value in given.items()} | paths
    check_paths(values)
    source = find(settings_class)
    assert source is not None
    check_settings(source, values, "")
    return values


def _path(argument: str) -> tuple[str, str] | None:
    name, equals, value = argument.partition("=")
    literal = equals and is_path(name) and "${" not in value and value.lower() != "null"
    return (name, at_home(value)) if literal else None
