"""A process ends with its command, though somebody's threads go on."""

from __future__ import annotations

import os
import sys
import threading
import time

GRACE_S = 5.0
"""How long threads may go on after the command, in seconds."""


def leave_soon(code: int, grace_s: float = GRACE_S) -> None:
    """Let the process end with this exit code after the grace time if threads still keep it alive by then.

    Python waits for every thread that is not a daemon, such as one that an environment started and never ended.
    """
    if _kept_alive():
        threading.Thread(target=_leave, args=(code, grace_s), name="leaving", daemon=True).start()


def _kept_alive() -> bool:
    main = threading.main_thread()
    return any(not thread.daemon and thread is not main for thread in threading.enumerate())


def _leave(code: int, grace_s: float) -> None:
    time.sleep(grace_s)
    if _kept_alive():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # its reader is gone, or it is closed
                continue
        os._exit(code)
