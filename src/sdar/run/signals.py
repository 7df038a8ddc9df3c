"""Signals that ask a run to end: noted in the handler, acted on where the run can be continued from.

Nothing heavy is imported here: signals are watched for before any work is done.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from sdar.errors import Stopped

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that ask a process to end."""
_SLURM = "SIGUSR1"
"""What jobs of Slurm are often warned with."""

_SAME = 0.3
"""Seconds within which signals count as one: ``timeout`` and some launchers signal a process and its group."""

_GRACE = 5.0
"""Seconds that a process has to end by itself where it should end at once."""


class StopSignals:
    """What this process was asked, and how it reacts.

    At first a signal ends it at once, by :class:`~sdar.errors.Stopped`. While ``patient`` is true, a signal is only
    noted, and whoever trains looks at ``number`` where an iteration may end. A second signal always ends the process at
    once, also where it waits for another one in a library.

    ``number``    the first signal; None: there was none
    ``patient``   whether signals are noted
    ``farewell``  what is said in the end, in one sentence; "" says nothing
    ``last``      called before a process ends at once
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False
        self.farewell: Callable[[int], str] = lambda number: str(Stopped(number))
        self.last: Callable[[], None] = lambda: None
        self._raised = False
        self._pipe: int | None = None
        self._pipe_before = -1
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Raise Stopped if a signal was noted."""
        if self.number is not None:
            raise Stopped(self.number, self.farewell(self.number))

    def at_once(self) -> None:
        """From now on signals end the process at once; one that was noted does so now."""
        self.patient = False
        self.check()

    def end(self, code: int, words: str) -> NoReturn:
        """End the process from any thread, whatever its main thread is waiting for, with a sentence."""
        with suppress(OSError):
            os.write(2, f"{words}\n".encode(errors="backslashreplace") if words else b"")
        with suppress(Exception):
            self.last()
        os._exit(code)

    @contextmanager
    def held(self) -> Iterator[StopSignals]:
        """Watch for signals inside; those that the process was started to ignore stay ignored.

        Only the main thread can; anywhere else signals stay as they are.
        """
        names = [*STOPPING, *([_SLURM] if "SLURM_JOB_ID" in os.environ else [])]
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        self._pipe_before = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        # A thread, because a handler has to wait while the main thread is inside a library, waiting for other ranks.
        watching = threading.Thread(target=self._watch, args=(reading,), name="stop-signals", daemon=True)
        watching.start()
        os.register_at_fork(after_in_child=self._forget)
        try:
            yield self
        finally:
            writing = self._forget()
            if writing is not None:
                os.close(writing)  # ends the thread
                watching.join()
                os.close(reading)

    def _forget(self) -> int | None:
        """Back to how signals were; also in a forked process, whose signals are not this one's."""
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return None
        signal.set_wakeup_fd(self._pipe_before)
        for number, handler in self._before.items():
            with suppress(ValueError):  # forked by a thread
                signal.signal(number, handler)
        self._before = {}
        return pipe

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.number is None:
            self.number = number
        if not self.patient and not self._raised:
            self._raised = True
            raise Stopped(self.number, self.farewell(self.number))

    def _watch(self, pipe: int) -> None:
        numbers = set(self._before)
        first: float | None = None
        deadline: float | None = None
        while True:
            ready = select.select([pipe], [], [], None if first is None else 0.1)[0]
            now = time.monotonic()
            if ready:
                # All that have come: where this thread was late, signals sent together must not look like two.
                read = os.read(pipe, 64)
                if not read:
                    return
                asked = [number for number in read if number in numbers]
                if not asked:
                    continue
                if first is None:
                    first = now
                    self.number = self.number or asked[0]
                elif now - first > _SAME:
                    self.end(128 + asked[0], self.farewell(asked[0]))
            elif deadline is None and not self.patient:
                deadline = now + _GRACE
            elif deadline is not None and now > deadline and self.number is not None:
                self.end(128 + self.number, self.farewell(self.number))
