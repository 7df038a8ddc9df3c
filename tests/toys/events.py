"""TensorBoard's event files, made without TensorBoard's writer and its threads."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary


def record(content: bytes) -> bytes:
    """One record, with checksums that nobody checks."""
    return struct.pack("<QI", len(content), 0) + content + struct.pack("<I", 0)


def write_events(folder: Path, curves: Mapping[str, Mapping[int, float]], number: int = 0) -> Path:
    """An event file with these curves; later files have higher numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{1_000_000_000 + number}.host.1.0"
    records = [Event(wall_time=1.0, file_version="brain.Event:2")]
    for tag, curve in curves.items():
        for step, value in curve.items():
            values = [Summary.Value(tag=tag, simple_value=value)]
            records.append(Event(wall_time=1.0, step=step, summary=Summary(value=values)))
    path.write_bytes(b"".join(record(one.SerializeToString()) for one in records))
    return path
