"""Standard output and error of a process whose work is worth more than what it prints."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


class LastingStream:
    r"""A text stream whose reader may go away: what can no longer be written is dropped, and nothing is raised.

    Characters that its encoding lacks are written as escapes such as ``\xfc``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write the text if that is still possible; returns its length."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Write what is kept if that is still possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        # What is left in the buffer must go somewhere, or the interpreter tries to write it again when it ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LastingFile(logging.FileHandler):
    """A log file that is told of once where it cannot be written, and costs nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the name is Python's
        """Say so on the screen; nothing more is written to the file."""
        if self.level <= logging.CRITICAL:
            self.setLevel(logging.CRITICAL + 1)
            print(f"WARNING: {self.baseFilename} cannot be written; the run goes on without it", file=sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record if that is still possible, also as the target of another handler."""
        if record.levelno >= self.level:
            super().emit(record)

    def close(self) -> None:
        """Write what is kept if that is still possible."""
        with suppress(OSError):
            super().close()


def outlive_readers() -> None:
    """From now on nothing printed by this process can end it: a closed pipe, a full disk, a letter without a code.

    Where it was started without one of the three streams, its number is taken: a file that got it would be printed to.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, LastingStream):
            setattr(sys, name, cast("TextIO", LastingStream(stream)))
