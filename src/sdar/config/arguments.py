"""Settings of small commands, given as ``name=value``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sdar.config.check import check_settings
from sdar.config.signatures import find
from sdar.errors import UserError


def named_values(arguments: Sequence[str], settings_class: str) -> dict[str, Any]:
    """The settings of a command line for a class, which is named by its dotted path.

    Raises:
        UserError: an argument is not ``name=value``, or the class has no such setting or refuses its value.
    """
    try:
        given = OmegaConf.to_container(OmegaConf.from_cli(list(arguments)), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"the arguments must be name=value, got {' '.join(arguments)}") from error
    assert isinstance(given, dict)
    values = {str(name): value for name, value in given.items()}
    source = find(settings_class)
    assert source is not None
    check_settings(source, values, "")
    return values
