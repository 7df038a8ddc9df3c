"""Waiting for what happens in other threads and processes: for the event itself, however slow the machine is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sdar.environments import worker

PATIENCE_S = 120.0
"""Seconds after which a test fails; one that passes does not wait for them."""


def until(true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"nothing happened within {seconds:g} s"
        time.sleep(0.01)


@contextmanager
def held_port() -> Iterator[int]:
    """A port at which nobody listens, and which the system gives to nobody else meanwhile.

    A server that may reuse addresses can listen at it, as those of Python's library and torch's stores do.
    """
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holding.bind(("127.0.0.1", 0))
        yield int(holding.getsockname()[1])


class Deadlines:
    """The clock of deadlines for environments, on which a test lets time pass.

    A deadline that is short enough to be waited for is missed by sound answers, too, where a machine is busy. So
    deadlines are long, and what is to be late lets them pass. ``hung``: how many calls have hung.
    """

    def __init__(self) -> None:
        self.hung = 0
        self._passed = 0.0
        self._released = threading.Event()

    def now(self) -> float:
        """What the workers of environments take for the time."""
        return time.monotonic() + self._passed

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds

    def release(self) -> None:
        """Let everything that hangs come to an end."""
        self._released.set()

    def hang(self, *_: Any, **__: Any) -> Any:
        """Does not answer until the test is over; every deadline passes meanwhile."""
        self.hung += 1
        self.skip(1e6)
        self._released.wait()


@contextmanager
def passing_deadlines() -> Iterator[Deadlines]:
    """For all workers of environments; threads that hang come to an end with it."""
    made = Deadlines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "time", SimpleNamespace(monotonic=made.now))
        patch.setattr(worker, "LONGEST_WAIT_S", 0.01)  # of one look, after which the clock is read again
        try:
            yield made
        finally:
            made.release()
