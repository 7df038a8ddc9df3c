"""The name of a run: a folder below ``logs_dir``, and never another place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from sdar.config.words import shown
from sdar.errors import UserError

_LONGEST = 200
"""Bytes of one part; the file systems in use take 255."""


def check_logger(name: str, node: Mapping[str, Any]) -> None:
    """Refuse what a logger of Lightning would make a folder's name of that no folder below ``save_dir`` has.

    Raises:
        UserError: ``name`` or ``version`` is absolute, has ``..`` in it, or a part that is too long.
    """
    for setting in ("name", "version"):
        value = node.get(setting)
        if not isinstance(value, str):
            continue
        parts = value.split("/")
        outside = PurePosixPath(value).is_absolute() or ".." in parts
        if outside or any(len(os.fsencode(part)) > _LONGEST for part in parts):
            raise UserError(
                f"logger.{name}.{setting} must be a folder's name below save_dir, of at most {_LONGEST} bytes and "
                f"without '..', got {shown(value)}"
            )


def check_name(name: str) -> None:
    """Refuse names that lead out of ``logs_dir``, or that no folder can have.

    Raises:
        UserError: ``name`` is empty, absolute, has ``..`` in it, controls, or a part that is too long.
    """
    parts = name.split("/")
    inside = not PurePosixPath(name).is_absolute() and not {"", ".", ".."} & {part.strip() for part in parts}
    if not inside or "\\" in name or not name.isprintable() or any(len(part.encode()) > _LONGEST for part in parts):
        raise UserError(
            f"name must be a folder's name below logs_dir, of at most {_LONGEST} bytes and without '..', "
            f"got {shown(name)}"
        )
