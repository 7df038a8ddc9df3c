"""Making environments by name, without a configuration."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sdar.environments.base import Environment
from sdar.errors import UserError

ENVIRONMENTS = {
    "alfworld": "sdar.environments.alfworld.environment.AlfworldEnvironment",
    "webshop": "sdar.environments.webshop.environment.WebshopEnvironment",
    "search_qa": "sdar.environments.search_qa.environment.SearchQAEnvironment",
    "arithmetic": "sdar.environments.arithmetic.environment.ArithmeticEnvironment",
}


def make(name: str, **settings: Any) -> Environment:
    """One of the environments of this package. The default settings need no download.

    Raises:
        UserError: there is no such environment, or a setting is wrong.
    """
    if name not in ENVIRONMENTS:
        raise UserError(f"environment must be one of {', '.join(ENVIRONMENTS)}, got {name!r}")
    module, _, cls = ENVIRONMENTS[name].rpartition(".")
    constructor: Callable[..., Environment] = getattr(import_module(module), cls)
    return constructor(**settings)
