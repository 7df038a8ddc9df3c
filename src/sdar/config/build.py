"""Building the objects that a validated configuration describes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sdar.config.targets import is_node, locate
from sdar.errors import UserError


def build(node: Mapping[str, Any], path: str, **provided: Any) -> Any:
    """The object of a node, the objects inside it built first.

    ``provided`` are arguments that the program fills in; ``path`` names the node in messages. A node with
    ``_partial_: true`` gives a function that takes the rest of the arguments.

    Raises:
        UserError: the constructor refused its arguments; its own reason is in the message.
    """
    function = locate(node["_target_"], path)
    arguments = {
        name: _inside(value, f"{path}.{name}") for name, value in node.items() if name not in ("_target_", "_partial_")
    }
    if node.get("_partial_"):
        return functools.partial(function, **arguments, **provided)
    try:
        return function(**arguments, **provided)
    except UserError:
        raise
    except Exception as error:
        # Our own constructors say UserError where the user is wrong, so anything else from them is a defect of ours.
        if str(node["_target_"]).startswith("sdar."):
            raise
        raise UserError(f"{path} cannot be built: {' '.join(str(error).split())}") from error


def _inside(value: Any, path: str) -> Any:
    if is_node(value):
        return build(value, path)
    if isinstance(value, Mapping):
        return {name: _inside(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_inside(item, f"{path}.{i}") for i, item in enumerate(value)]
    return value
