"""Settings that hold a path, known by their names: what stands behind the first ``=`` is the path, as it was typed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sdar.config.words import shown
from sdar.errors import UserError

_NAMES = re.compile(
    r"skills|(.+\.)?(encoder|corpus|(model|other)\.name|(\w+_)?(path|dir|dirpath|directory|folder|file))"
)
"""Of dotted names. A setting of a user's own class holds a path where its name ends like these."""

_PLAIN = re.compile(r"(?!(?:true|false|inf|nan|null)$)(?:[A-Za-z/]|\.{1,2}/)[\w/.-]*", re.ASCII | re.IGNORECASE)
"""What Hydra's grammar reads as the text that it is."""

_LONGEST_PART, _LONGEST = 255, 4095
"""Bytes of a file's name and of a path, on the file systems in use."""


def is_path(name: str) -> bool:
    """Whether the setting of this dotted name holds a path."""
    return _NAMES.fullmatch(name) is not None


def written(value: str, *, several: bool) -> str:
    """A path from the command line in the words of Hydra's grammar, in which ``= ( [ ~ ü`` and others cannot stand.

    Left as they are: what is quoted already, interpolations, ``null`` and nothing. ``several``: commas separate values.
    """
    if "${" in value or value.lower() in ("", "null") or _is_quoted(value):
        return value
    items = value.split(",") if several else [value]
    # Of several, one may be null.
    return ",".join(
        item if _PLAIN.fullmatch(item) or _is_quoted(item) or item.strip().lower() == "null" else quoted(item)
        for item in items
    )


def quoted(text: str) -> str:
    """A text in quotes of Hydra's grammar: double ones, which need none of a shell's escapes inside single quotes."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single if '"' in text else Quote.double).with_quotes()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] in "'\"" and value[0] == value[-1]


def paths(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The paths in plain settings, by their dotted names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from paths(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, str) and is_path(name):
        yield name, value


def at_home(path: str) -> str:
    """The path with ``~`` or ``~user`` at its beginning replaced by that home directory."""
    return os.path.expanduser(path) if path.startswith("~") else path  # noqa: PTH111 - "~nobody" stays as it is


def check_paths(settings: Any, name: str = "") -> None:
    """Refuse what no file system takes as a path.

    Raises:
        UserError: naming the setting.
    """
    for full, path in paths(settings, name):
        parts = path.split("/")
        if not path.strip() or "\0" in path:
            raise UserError(f"{full} must be a path, got {shown(path)}")
        if len(os.fsencode(path)) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_PART for part in parts):
            raise UserError(f"{full} must be a path whose parts have at most {_LONGEST_PART} bytes, got {shown(path)}")
