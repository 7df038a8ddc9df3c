"""What is asked of an environment and its pools passes through one function, which may watch, limit and guard it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sdar.environments.base import Environment
from sdar.environments.worker import TooLateError, Worker
from sdar.errors import RunFailed, UserError, is_interrupt, told

T = TypeVar("T")

ANSWER_S = 60.0
"""How long somebody at a terminal waits for one answer of an environment, in seconds."""

Ask = Callable[[str, Callable[[], Any]], Any]
"""Given a method's name and the call of it, returns what the call returns."""


class _Asked:
    """An object whose methods are called by ``ask``; everything else of it is as it is."""

    def __init__(self, of: object, ask: Ask) -> None:
        self._of, self._ask = of, ask

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        if not callable(value):
            return value

        def called(*arguments: Any) -> Any:
            answer = self._ask(name, lambda: value(*arguments))
            return _Asked(answer, self._ask) if name == "open_pool" else answer

        return called

    def __eq__(self, other: object) -> bool:
        """Two of the same object are equal."""
        return isinstance(other, _Asked) and self._of is other._of

    def __hash__(self) -> int:
        return id(self._of)


def asked(environment: Environment, ask: Ask) -> Environment:
    """The environment, and with it its pools, whose methods are called by ``ask``."""
    return cast("Environment", _Asked(environment, ask))


def late(name: str, seconds: float | None) -> str:
    """The sentence for a method without an answer."""
    return f"{name} did not answer within {seconds:g} s"


def answering(environment: Environment, worker: Worker) -> Environment:
    """The environment, whose methods run in a worker; RunFailed for one that is late or raises.

    A pool is not asked to close after something was late.
    """
    given_up = False

    def ask(name: str, call: Callable[[], T]) -> T | None:
        nonlocal given_up
        if given_up and name == "close":
            return None
        try:
            return worker.call(lambda: _caught(name, call))
        except TooLateError:
            given_up = True
            raise RunFailed(f"the environment cannot be played on: {late(name, worker.seconds)}") from None

    return asked(environment, ask)


def _caught(name: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except UserError:
        raise
    except BaseException as error:  # sys.exit, too: the process is not the environment's to end
        if is_interrupt(error):
            raise
        raise RunFailed(f"the environment cannot be played on: {name} raises {told(error)}") from error
