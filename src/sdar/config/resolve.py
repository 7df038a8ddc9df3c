"""A composed configuration in plain values."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.errors import UserError

_NOT_FOUND = re.compile(r"Environment variable '(\w+)' not found")
"""What OmegaConf says of ``${oc.env:NAME}``."""

_MISSING = re.compile(r"Missing mandatory value: (\S+)")
"""What OmegaConf says of ``${name}`` where ``name`` is ``???``."""


def resolve(config: Any, name: str | None = None) -> Any:
    """The plain values of a configuration, or of its group of that name; what is plain already is returned as it is.

    Raises:
        UserError: a setting that must be given is missing, or refers to nothing.
    """
    try:
        node = config if name is None else config[name]
        if not OmegaConf.is_config(node):
            return node
        if missing := sorted(OmegaConf.missing_keys(node)):
            raise _unset(missing[0])
        return OmegaConf.to_container(node, resolve=True)
    except RecursionError:
        raise UserError("the configuration is nested too deep, or a value refers to itself") from None
    except OmegaConfBaseException as error:
        if variable := _NOT_FOUND.search(str(error)):
            raise _unset(str(error.full_key), f"{variable[1]}=VALUE in the shell") from error
        if unset := _MISSING.search(str(error)):
            raise _unset(unset[1]) from error
        where = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"{where}the value cannot be resolved: {str(error).splitlines()[0]}") from error


def _unset(name: str, otherwise: str = "") -> UserError:
    return UserError(f"{name} is not set: give it as {name}=VALUE{otherwise and f', or {otherwise}'}")
