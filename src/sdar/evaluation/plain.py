"""Episodes as plain values and back, without loss: what a JSON text can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sdar.episode import EndReason, Episode, Observation, Preface, Task, Tool, Turn

_CLASSES = {made.__name__: made for made in (Episode, Turn, Observation, Preface, Tool)}


def to_plain(value: Any) -> Any:
    """Lists and numbers stay what they are; all else is a mapping of one entry, which says what it is.

    A task is its id. TypeError for what an episode is not made of.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return value if all(type(inner) is int for inner in value) else [to_plain(inner) for inner in value]
    if type(value) is tuple:
        return {"tuple": [to_plain(inner) for inner in value]}
    if type(value) is EndReason:
        return {"EndReason": value.value}
    if type(value) is Task:
        return {"Task": value.task_id}
    name = type(value).__name__
    if _CLASSES.get(name) is type(value):
        return {name: {one.name: to_plain(getattr(value, one.name)) for one in fields(value) if one.init}}
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {"dict": {key: to_plain(inner) for key, inner in value.items()}}
    raise TypeError(f"an episode must be made of plain values, got {name}")


def from_plain(value: Any, tasks: Mapping[str, Task]) -> Any:
    """What :func:`to_plain` was given; ``tasks`` by their ids. KeyError, TypeError or ValueError for other values."""
    if isinstance(value, list):
        return [from_plain(inner, tasks) if isinstance(inner, dict | list) else inner for inner in value]
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    if name == "tuple":
        return tuple(from_plain(inner, tasks))
    if name == "EndReason":
        return EndReason(inner)
    if name == "Task":
        return tasks[inner]
    made = {key: from_plain(one, tasks) for key, one in inner.items()}
    return made if name == "dict" else _CLASSES[name](**made)
