"""What a teacher may answer. Each function returns the answer, or says what it must be and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from sdar.errors import UserError
from sdar.rollout.answers import AnswerError, checked_text, got


def checked_contexts(teacher: object, texts: Any, episodes: int) -> list[str]:
    """What ``contexts`` returned: the text for each of so many episodes. UserError: it is something else."""
    if not isinstance(texts, list | tuple):
        raise _wrong(teacher, f"contexts must return a list with a text for each episode, got {got(texts)}")
    if len(texts) != episodes:
        raise _wrong(teacher, f"contexts must return one text for each of the {episodes} episodes, got {len(texts)}")
    return [checked_teacher_text(teacher, text) for text in texts]


def checked_teacher_text(teacher: object, text: Any) -> str:
    """A text of a teacher. UserError: it is none, or no Unicode text."""
    try:
        return checked_text(text, "its text")
    except AnswerError as error:
        raise _wrong(teacher, str(error)) from error


def checked_teacher_metrics(teacher: object, metrics: Any) -> dict[str, float]:
    """What ``metrics`` returned. UserError: it is no mapping of tags to numbers."""
    if not isinstance(metrics, Mapping):
        raise _wrong(teacher, f"metrics must return a mapping of tags to numbers, got {got(metrics)}")
    found = {}
    for tag, value in metrics.items():
        number = _number(value)
        if not isinstance(tag, str) or number is None:
            raise _wrong(teacher, f"metrics must return numbers by their tags, got {got(value)} for {got(tag)}")
        found[tag] = number
    return found


def checked_teacher_record(teacher: object, record: Any) -> dict[str, Any]:
    """What ``record`` returned. UserError: it is no mapping of names."""
    if not isinstance(record, Mapping) or not all(isinstance(name, str) for name in record):
        raise _wrong(teacher, f"record must return a mapping of names to plain values, got {got(record)}")
    return dict(record)


def _wrong(teacher: object, what: str) -> UserError:
    return UserError(f"teacher {type(teacher).__name__}: {what}")


def _number(value: Any) -> float | None:
    """A number, torch's and numpy's included; None: it is none."""
    plain: Any = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if plain is True or plain is False:
        return None
    return float(plain) if isinstance(plain, Real) else None
