"""Calls with a deadline: they run in a thread of their own, which is given up when it does not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_LONGEST_WAIT_S = 3600.0
"""Of one look at the queue: longer times overflow on some systems."""


class TooLateError(Exception):
    """A call gave no sign of life within its time."""


class Worker:
    """Runs calls one after the other in one long-lived thread.

    Args:
        seconds: longest time between two signs of life of a call; None: no limit, and calls run in the caller's thread.

    A thread cannot be ended from outside. One that is late, or whose caller was interrupted, is left to itself (it does
    not keep the process alive), and the next call gets a new one. So is one whose call nobody has waited for. Signals
    reach the caller while it waits.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._calls: SimpleQueue[Callable[[], Any] | None] | None = None
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._heard = 0.0
        self._busy = False

    def alive(self) -> None:
        """A sign of life, given by a call that consists of several steps: the time begins anew."""
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
        if self._busy:
            self.close()
        self.alive()
        self._busy = True
        self._queue().put(function)
        return partial(self._result, self.seconds if seconds is None else seconds)

    def _result(self, limit: float) -> Any:
        try:
            value, error = self._answer(limit)
        except BaseException:
            self.close()
            raise
        self._busy = False
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the thread after its present call. Idempotent."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = None
        self._busy = False

    def _queue(self) -> SimpleQueue[Callable[[], Any] | None]:
        if self._calls is None:
            self._calls, self._answers = SimpleQueue(), SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls, self._answers), name="environment", daemon=True).start()
        return self._calls

    def _answer(self, limit: float) -> tuple[Any, BaseException | None]:
        while True:
            left = self._heard + limit - time.monotonic()
            try:
                return self._answers.get(timeout=min(max(left, 0.0), _LONGEST_WAIT_S))
            except Empty:
                if time.monotonic() >= self._heard + limit:
                    raise TooLateError from None


def _serve(
    calls: SimpleQueue[Callable[[], Any] | None], answers: SimpleQueue[tuple[Any, BaseException | None]]
) -> None:
    while (function := calls.get()) is not None:
        try:
            answers.put((function(), None))
        except BaseException as error:  # it is the caller's
            answers.put((None, error))
        del function  # nothing of a call is kept while the next one is waited for
