"""Calls with a deadline: they run in a thread of their own, which is given up when it does not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sdar.errors import INTERRUPTS, told

T = TypeVar("T")

_Answers = SimpleQueue[tuple[Any, BaseException | None]]

LONGEST_WAIT_S = 3600.0
"""Of one look at the queue: longer times overflow on some systems."""


class TooLateError(Exception):
    """A call gave no sign of life within its time."""


class Worker:
    """Runs calls one after the other in one long-lived thread.

    Args:
        seconds: longest time between two signs of life of a call; None: no limit, and calls run in the caller's thread.

    A thread cannot be ended from outside. One that is late is left to itself (it does not keep the process alive), and
    the next call gets a new one. So is one whose caller does not wait any more, because it was interrupted, unless it
    is given the time to :meth:`settle`. Signals reach the caller while it waits.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._calls: SimpleQueue[tuple[Callable[[], Any], _Answers] | None] | None = None
        self._thread: threading.Thread | None = None
        self._running: _Answers | None = None
        self._heard = 0.0

    def alive(self) -> None:
        """A sign of life, given by a call that consists of several steps: the time begins anew."""
        if threading.current_thread() is self._thread:  # others have been given up
            self._heard = time.monotonic()

    def call(self, function: Callable[[], T], seconds: float | None = None) -> T:
        """The call's result, or what it raised. ``seconds``: another limit than the worker's, if that has one.

        Raises :class:`TooLateError` where there was no sign of life in time.
        """
        return self.begin(function, seconds)()

    def begin(self, function: Callable[[], T], seconds: float | None = None) -> Callable[[], T]:
        """Begin a call. What is returned waits for its result and returns or raises it, as :meth:`call` does.

        The caller does other work in between, during which the time runs. Without a limit the call begins when its
        result is waited for, in the caller's thread.
        """
        if self.seconds is None:
            return function
        if self._running is not None:
            self.close()
        answers: _Answers = SimpleQueue()
        self._heard = time.monotonic()
        self._running = answers
        self._queue().put((function, answers))
        return partial(self._result, answers, self.seconds if seconds is None else seconds)

    def settle(self, seconds: float) -> None:
        """Wait for a call that nobody waits for any more. Its thread is given up where it takes longer."""
        if self._running is None:
            return
        end = time.monotonic() + seconds
        try:
            _next(self._running, lambda: end)
        except TooLateError:
            self.close()
        self._running = None

    def close(self) -> None:
        """End the thread after its present call. Idempotent."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = self._thread = self._running = None

    def _queue(self) -> SimpleQueue[tuple[Callable[[], Any], _Answers] | None]:
        if self._calls is None:
            self._calls = SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._calls,), name="environment", daemon=True)
            self._thread.start()
        return self._calls

    def _result(self, answers: _Answers, limit: float) -> Any:
        try:
            value, error = _next(answers, lambda: self._heard + limit)
        except TooLateError:
            if self._running is answers:
                self.close()
            raise
        if self._running is answers:
            self._running = None
        if error is not None:
            raise error
        return value


def _next(answers: _Answers, end: Callable[[], float]) -> tuple[Any, BaseException | None]:
    """The next answer. TooLateError: there is none at the end, which may move while it is waited for."""
    while True:
        left = end() - time.monotonic()
        try:
            return answers.get(timeout=min(max(left, 0.0), LONGEST_WAIT_S))
        except Empty:
            if time.monotonic() >= end():
                raise TooLateError from None


def _serve(calls: SimpleQueue[tuple[Callable[[], Any], _Answers] | None]) -> None:
    while (call := calls.get()) is not None:
        function, answers = call
        try:
            answers.put((function(), None))
        except INTERRUPTS as error:  # in the caller's thread it would be a person's
            answers.put((None, RuntimeError(told(error))))
        except BaseException as error:  # it is the caller's
            answers.put((None, error))
        del call, function, answers  # nothing of a call is kept while the next one is waited for
