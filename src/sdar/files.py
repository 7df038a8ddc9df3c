"""A user's files, read within bounds: regular files of a size that suits their kind, in UTF-8.

Whatever would block or fill the memory is refused before it is read: pipes, devices, sockets, links that lead in a
circle, and files that are larger than any of their kind.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_cache_path

from sdar.errors import UserError

KB, MB, GB = 1_000, 1_000_000, 1_000_000_000

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BLOCK = 1 << 20
_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 50
"""Levels of a YAML file; what works on the values descends by recursion."""
_LONG_NUMBER = re.compile(r"[-+0-9_:.]{300,}")
"""What YAML would read as a number, in a time that grows with the square of its length."""
_LONGEST = 300
"""Most characters of a parser's message."""
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 3, 60, 60


class FileError(UserError):
    """A file that cannot be used: ``path`` and ``reason``, what follows the name in a sentence ("must be ...")."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def expanded(path: str | Path) -> Path:
    """The path with ``~`` replaced by the home directory; that of an unknown user stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


CACHE_VARIABLE = "SDAR_CACHE"
"""Environment variable that names the folder of what is computed once."""


def cache_root(cache_dir: str | Path | None) -> Path:
    """Folder of what is computed once: the given one, ``$SDAR_CACHE``, or the user's cache folder."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    return expanded(chosen) if chosen else user_cache_path("sdar")


def entries(folder: str | Path) -> list[Path]:
    """What is in a directory, sorted by name. FileError: it is none, or cannot be read."""
    try:
        return sorted(Path(folder).iterdir())
    except FileNotFoundError:
        found = "nothing of that name"
    except NotADirectoryError:
        found = "a file"
    except (OSError, ValueError) as error:
        found = f"one that cannot be read ({_said(error)})"
    raise FileError(folder, f"must be a directory, got {found}")


def check_regular(path: str | Path, limit: int) -> None:
    """FileError unless the path is a regular file of at most ``limit`` bytes."""
    try:
        _check(path, Path(path).stat(), limit)
    except (OSError, ValueError) as error:
        raise FileError(path, f"cannot be read ({_said(error)})") from error


def opened(path: str | Path, limit: int) -> BufferedReader:
    """A regular file of at most ``limit`` bytes, open for reading. FileError: it is none, or cannot be read."""
    check_regular(path, limit)
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    except (OSError, ValueError) as error:
        raise FileError(path, f"cannot be read ({_said(error)})") from error
    try:
        _check(path, os.fstat(file.fileno()), limit)
    except FileError:
        file.close()
        raise
    return file


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a regular file. FileError: it is none, has more than ``limit`` bytes, or cannot be read."""
    blocks: list[bytes] = []
    size = 0
    with opened(path, limit) as file:
        try:
            while block := file.read(_BLOCK):
                blocks.append(block)
                size += len(block)
                if size > limit:  # of files in /proc and growing ones the size says nothing
                    raise FileError(path, f"must have at most {_size(limit)}, got more")
        except OSError as error:
            raise FileError(path, f"cannot be read ({_said(error)})") from error
    return b"".join(blocks)


def read_text(path: str | Path, limit: int) -> str:
    r"""The text of a file without byte order mark, with ``\n`` for every line end.

    FileError: see :func:`read_bytes`; it is not UTF-8, or has a NUL character.
    """
    content = read_bytes(path, limit)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = packed(content) or f"other bytes at position {error.start}"
        raise FileError(path, f"must be UTF-8 text, got {found}") from error
    if "\0" in text:
        raise FileError(path, "must be UTF-8 text, got a NUL character")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path, limit: int) -> Any:
    """The value in a JSON file. FileError: see :func:`read_text`; it is not JSON, or nested too deeply."""
    text = read_text(path, limit)
    try:
        return parse_json(text)
    except ValueError as error:
        raise FileError(path, f"must be JSON, got a damaged or incomplete file ({error})") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text. ValueError: it is none; the message is a clause with the reason."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} in line {error.lineno}") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None


def read_yaml(path: str | Path, most: int) -> Any:
    """The value in a YAML file of at most ``most`` bytes; see :func:`parse_yaml`.

    FileError: see :func:`read_text`; it is not plain YAML.
    """
    text = read_text(path, most)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise FileError(path, f"must be plain YAML, got something else ({error})") from error


def parse_yaml(text: str, *, aliases: bool = False) -> Any:
    """The value of a YAML text: without tags of Python, and without aliases unless they are asked for.

    A few lines with aliases can stand for more than fits into memory.

    ValueError: it is none; the message is a clause with the reason.
    """
    _check_events(text, aliases)
    try:
        return yaml.load(text, _YAML)
    except Exception as error:  # besides its own, PyYAML lets through what a wrong date or !!int "" raises
        raise ValueError(_clause(error)) from error


def check_yaml(path: str | Path, most: int) -> None:
    """Check that a YAML file of at most ``most`` bytes can be read in little time and memory, by whatever reads YAML.

    FileError: see :func:`read_yaml`. Tags, and what values stand for, are left to the reader.
    """
    text = read_text(path, most)
    try:
        _check_events(text, aliases=False)
    except ValueError as error:
        raise FileError(path, f"must be plain YAML, got something else ({error})") from error


def _check_events(text: str, aliases: bool) -> None:
    """ValueError: the text is no YAML, or stands for more than its length suggests."""
    depth = 0
    try:
        for event in yaml.parse(text, _YAML):
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise yaml.YAMLError(f"it has the alias *{brief(event.anchor)[1:-1]}; write the value instead")
            if isinstance(event, yaml.ScalarEvent) and _LONG_NUMBER.fullmatch(event.value):
                raise yaml.YAMLError("a number has too many digits")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise yaml.YAMLError("it is nested too deeply")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(_clause(error)) from error


def _clause(error: Exception) -> str:
    said = re.sub(r"\s+", " ", str(error)) if isinstance(error, (yaml.YAMLError, ValueError)) else ""
    return said[:_LONGEST] or "it has a value that does not fit its tag"


def packed(content: bytes) -> str:
    """What compressed a file that begins like this ("gzip data, which must be unpacked"); empty: nothing known."""
    found = next((name for start, name in _PACKED.items() if content.startswith(start)), "")
    return found and f"{found} data, which must be unpacked"


def brief(value: Any) -> str:
    """A value from a file as a message shows it: its ``repr``, cut in length and depth."""
    try:
        text = _BRIEF.repr(value)
    except ValueError:
        return "a number of many digits"
    return text if len(text) <= 120 else text[:117] + "..."


def _open_at_once(path: str, flags: int) -> int:
    """A pipe that has taken the file's place since it was checked must not block."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(path: str | Path, status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileError(path, f"must be a regular file, got {_kind(status.st_mode)}")
    if status.st_size > limit:
        raise FileError(path, f"must have at most {_size(limit)}, got {_size(status.st_size)}")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _size(count: int) -> str:
    for unit, name in ((GB, "GB"), (MB, "MB"), (KB, "kB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"
