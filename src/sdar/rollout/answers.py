"""What an environment may answer: types and ranges of texts, observations, outcomes and projections.

Each function returns the answer in plain types, the very same object where it is plain already, and raises AnswerError,
which says what the answer must be and what it is.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from numbers import Real
from typing import Any, TypeVar

import numpy as np

from sdar.environments.base import Projection
from sdar.environments.check_records import LARGEST_REWARD
from sdar.episode import EndReason, Observation, Preface, StepOutcome
from sdar.errors import INTERRUPTS

T = TypeVar("T")


class AnswerError(ValueError):
    """An answer that the protocol does not allow. The message is a clause: what it must be, and what it is."""


_REPR = reprlib.Repr()
_REPR.maxother, _REPR.maxstring = 80, 60


def got(value: Any) -> str:
    """A value of any kind in a few words."""
    try:
        return _REPR.repr(value)
    except INTERRUPTS:
        raise
    except BaseException:  # such as an integer of thousands of digits
        return f"an object of type {type(value).__name__}"


def checked_text(value: Any, what: str) -> str:
    """A text that tokenizers and files accept."""
    if type(value) is not str:
        if not isinstance(value, str):
            raise AnswerError(f"{what} must be a text, got {got(value)}")
        value = str.__str__(value)  # of a subclass
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            surrogate = ascii(value[error.start])
            raise AnswerError(f"{what} must be Unicode text, got the lone surrogate {surrogate}") from None
    plain: str = value
    return plain


def checked_flag(value: Any, what: str) -> bool:
    """True or False, numpy's included."""
    if value is True or value is False:
        return bool(value)
    if isinstance(value, np.bool_):
        return bool(value)
    raise AnswerError(f"{what} must be True or False, got {got(value)}")


def checked_number(value: Any, what: str, low: float, high: float) -> float:
    """A number in [low, high], numpy's included; True is none."""
    number = math.nan
    if type(value) is float:
        number = value
    elif not isinstance(value, bool) and isinstance(value, Real):
        with suppress(OverflowError):  # an integer may have hundreds of digits
            number = float(value)
    if not low <= number <= high:
        raise AnswerError(f"{what} must be a number from {low:g} to {high:g}, got {got(value)}")
    return number


def checked_actions(value: Any) -> tuple[str, ...] | None:
    """The admissible actions of an observation."""
    if value is None:
        return None
    if not isinstance(value, tuple):
        raise AnswerError(f"the actions of an observation must be a tuple of texts or None, got {got(value)}")
    # As fast as it can be told: there may be dozens of actions in each of a hundred thousand steps.
    if type(value) is tuple and {*map(type, value)} <= {str} and "".join(value).isascii():
        return value
    return tuple(checked_text(action, "an action of an observation") for action in value)


def checked_results(value: Any) -> tuple[str, ...]:
    """The results of the calls that an observation answers."""
    if not isinstance(value, tuple):
        raise AnswerError(f"the results of an observation must be a tuple of texts, got {got(value)}")
    if type(value) is tuple and not value:
        return value
    return tuple(checked_text(result, "a result of an observation") for result in value)


def plain(value: T, kind: type[T]) -> T:
    """An object of exactly this dataclass: attributes of one of a subclass, which may change, are read once."""
    if type(value) is kind:
        return value
    return kind(**{field.name: getattr(value, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def checked_observation(value: Any, what: str = "an observation") -> Observation:
    """An observation."""
    if not isinstance(value, Observation):
        raise AnswerError(f"{what} must be an Observation, got {got(value)}")
    seen = plain(value, Observation)
    text = checked_text(seen.text, "the text of an observation")
    anchor = checked_text(seen.anchor, "the anchor of an observation")
    actions = checked_actions(seen.actions)
    refused = checked_flag(seen.refused, "refused of an observation")
    results = checked_results(seen.results)
    same = text is seen.text and anchor is seen.anchor and actions is seen.actions and refused is seen.refused
    if same and results is seen.results:
        return seen
    return Observation(text, actions, anchor, refused, results)


def checked_outcome(value: Any) -> StepOutcome:
    """An outcome without an error, with its end reason where it is done."""
    if not isinstance(value, StepOutcome):
        raise AnswerError(f"an outcome must be a StepOutcome, got {got(value)}")
    outcome = plain(value, StepOutcome)
    done, success = checked_flag(outcome.done, "done"), checked_flag(outcome.success, "success")
    end = outcome.end
    if end is not None and not isinstance(end, EndReason):
        raise AnswerError(f"the end must be an EndReason or None, got {got(end)}")
    if end is EndReason.CONTEXT_FULL:
        raise AnswerError("the end must be an environment's own, got EndReason.CONTEXT_FULL, which is the collector's")
    if done and end is None:
        end = EndReason.SUCCESS if success else EndReason.FAILURE
    if done != (end is not None) or success != (end is EndReason.SUCCESS):
        given = f"done={done}, success={success}, end={None if end is None else end.name}"
        raise AnswerError(f"done, success and end must agree, got {given}")
    view = checked_observation(outcome.observation, "the observation of an outcome")
    reward = checked_number(outcome.reward, "the reward", -LARGEST_REWARD, LARGEST_REWARD)
    scores = checked_scores(outcome.scores)
    same = view is outcome.observation and reward is outcome.reward and scores is outcome.scores and end is outcome.end
    if same and done is outcome.done and success is outcome.success:
        return outcome
    return StepOutcome(view, reward, done, success, scores, end)


def checked_scores(value: Any) -> Mapping[str, float]:
    """Named scores in [0, 1]."""
    if not isinstance(value, Mapping):
        raise AnswerError(f"the scores must be a mapping of names to numbers, got {got(value)}")
    if type(value) is dict and all(
        type(name) is str and name.isascii() and type(score) is float and 0 <= score <= 1
        for name, score in value.items()
    ):
        return value
    return {
        checked_text(name, "the name of a score"): checked_number(score, f"the score {got(name)}", 0.0, 1.0)
        for name, score in value.items()
    }


def checked_prompt(write: Callable[..., str], *arguments: Any) -> str:
    """The text of a user message, written by a method of the environment."""
    return checked_text(write(*arguments), "a prompt")


def checked_preface(write: Callable[..., Preface], *arguments: Any) -> Preface:
    """What stands before the first user message, said by a method of the environment."""
    value: Any = write(*arguments)
    if not isinstance(value, Preface):
        raise AnswerError(f"preface must return a Preface, got {got(value)}")
    return plain(value, Preface)


def checked_projection(value: Any) -> Projection:
    """What a response was projected to."""
    if not isinstance(value, Projection):
        raise AnswerError(f"project must return a Projection, got {got(value)}")
    projection = plain(value, Projection)
    action = checked_text(projection.action, "the action of a projection")
    return Projection(action, checked_flag(projection.valid, "valid of a projection"))


def checked_plan(value: Any) -> list[str] | None:
    """The actions of an expert."""
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise AnswerError(f"a plan must be a list of actions or None, got {got(value)}")
    return [checked_text(action, "an action of a plan") for action in value]
