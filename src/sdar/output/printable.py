"""Text of others - environments, models, files, servers - as a terminal may show it."""

from __future__ import annotations

import logging
import re

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls other than tab and line feed, what turns the direction of writing around, and lone surrogates."""


def printable(text: str) -> str:
    """The text with an escape (x1b for ESC) for each character that would act on a terminal instead of showing."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


class PrintableFormatter(logging.Formatter):
    """Formats records for a screen or a file that somebody will show on one."""

    def format(self, record: logging.LogRecord) -> str:
        """See :func:`printable`."""
        return printable(super().format(record))
