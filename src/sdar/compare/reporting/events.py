"""Scalars of TensorBoard's event files, read fast: of hundreds of runs, and only the wanted tags.

TensorBoard's own reader keeps every tag and takes many times as long. A file is a sequence of records: length (8
bytes), checksum (4), an ``Event``, checksum (4).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from sdar.files import GB, MB, FileError, opened

Scalars = dict[str, dict[int, float]]
"""Tag -> step -> value."""

_LARGEST_FILE = 2 * GB
_LARGEST_SCALAR = 10_000
"""Bytes of a record with a scalar; larger ones hold pictures, histograms and texts, and are passed over."""
_LARGEST_RECORD = 500 * MB
_LAST_STEP = 2**53
_HEAD = struct.Struct("<Q4x")
_TAIL = 4


def read_scalars(folder: Path, wanted: Iterable[str]) -> tuple[Scalars, list[str]]:
    """The scalars of all event files in a folder, and what could not be read, in clauses.

    ``wanted`` are beginnings of tags. Where several files have a step, the one that was begun last counts. Values that
    are not finite are left out. A record cut off at the end of a file is usual, as runs may be stopped.
    """
    beginnings = re.compile(b"|".join(re.escape(text.encode()) for text in wanted))
    found: Scalars = {}
    damage: list[str] = []
    try:
        files = sorted(folder.glob("events.out.tfevents.*"))
    except OSError as error:
        return {}, [f"{folder} cannot be read ({error.strerror})"]
    for path in files:
        try:
            with opened(path, _LARGEST_FILE) as file:
                whole = _read(file, beginnings, found)
        except FileError as error:
            damage.append(str(error))
        except OSError as error:
            damage.append(f"{path} cannot be read ({error.strerror})")
        else:
            if not whole:
                damage.append(f"{path} is damaged, and was read up to there")
    return found, damage


def _read(file: BinaryIO, wanted: re.Pattern[bytes], found: Scalars) -> bool:
    """Add the scalars of a file. False: it is no event file, or damaged from some place on."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event

    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        (length,) = _HEAD.unpack(head)
        if length > _LARGEST_RECORD:
            return False
        if length > _LARGEST_SCALAR:
            file.seek(length + _TAIL, 1)
            continue
        content = file.read(length + _TAIL)
        if len(content) < length + _TAIL:
            return True
        if wanted.search(content) is None:
            continue
        try:
            event = Event.FromString(content[:-_TAIL])
        except DecodeError:
            return False
        if not 0 <= event.step <= _LAST_STEP:
            return False
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value" and wanted.match(value.tag.encode()):
                number = value.simple_value
                if math.isfinite(number):
                    found.setdefault(value.tag, {})[event.step] = number
    return True
