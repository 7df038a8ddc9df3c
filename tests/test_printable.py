from __future__ import annotations

import logging

import pytest

from sdar.output.printable import PrintableFormatter, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00\x08", r"\x9b31m\x7f\x00\x08"),
        ("over\rwritten", r"over\rwritten"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("half \ud83d of it", r"half \ud83d of it"),
        ("lines\n\tand ü, 漢字, 🙂‍↕️", "lines\n\tand ü, 漢字, 🙂‍↕️"),
    ],
)
def test_what_would_act_on_a_terminal_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


def test_a_record_of_the_log_is_safe_to_show() -> None:
    record = logging.LogRecord("sdar", logging.WARNING, "", 0, "task %s", ("\x1b[2J",), None)
    assert PrintableFormatter("%(levelname)s: %(message)s").format(record) == r"WARNING: task \x1b[2J"
