"""The working directory, which belongs to the run: it writes to relative paths, and many episodes share a process."""

from __future__ import annotations

import os
from contextlib import suppress


class WorkingDirectory:
    """The working directory of this moment, to be returned to after foreign code has run."""

    def __init__(self) -> None:
        self._place = _present()

    def restore(self) -> str | None:
        """Return to it where the process has left it. Where it had gone; None: it had not."""
        present = _present()
        if self._place is None or present == self._place:
            return None
        with suppress(OSError):
            os.chdir(self._place)
        return present or "a folder that is gone"


def strayed(place: str) -> str:
    """Says that an environment has gone to another working directory."""
    return f"it must leave the working directory alone, and changed it to {place!r}"


def _present() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a text is compared, thousands of times
    except OSError:  # it was removed
        return None
