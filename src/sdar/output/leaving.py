"""A process ends with its command, though somebody's threads go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

GRACE_S = 5.0
"""How long threads may go on after the command, in seconds."""

END_S = 30.0
"""How long the interpreter may take to end, in seconds."""


def leave_soon(code: int, grace_s: float = GRACE_S, end_s: float = END_S) -> None:
    """Let the process end with this exit code, whatever keeps it alive.

    Python waits for every thread that is not a daemon, such as one that an environment started and never ended; it gets
    the grace time. It also waits for threads of executors, for processes of multiprocessing and for functions of
    atexit, some of which have things to do: for all of them there is the longer time. A signal meanwhile ends the
    process at once: all is done and said.
    """
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: _flush_and_leave(code))
    # A daemon thread runs until the interpreter is gone, so it acts only where the process has not ended by then.
    threading.Thread(target=_leave, args=(code, grace_s, end_s), name="leaving", daemon=True).start()


def _kept_alive() -> bool:
    main = threading.main_thread()
    return any(not thread.daemon and thread is not main for thread in threading.enumerate())


def _leave(code: int, grace_s: float, end_s: float) -> None:
    time.sleep(grace_s)
    if not _kept_alive():
        time.sleep(max(end_s - grace_s, 0.0))
    _flush_and_leave(code)


def _flush_and_leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # its reader is gone, it is closed, or there is none
            stream.flush()
    os._exit(code)
