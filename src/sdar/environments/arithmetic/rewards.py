"""What a response answers, and whether that is right."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from sdar.environments.tags import Tags

Compare = Literal["number", "text"]
Extract = Literal["tagged", "last_number"]
"""What of a response is the answer: the text between the tags, or the last number anywhere in it."""

_ANSWER = Tags("answer", any_case=True)
_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
GSM_MARK = "####"
"""In front of the final number in GSM8K's solutions (openai/grade-school-math, ``dataset.py``)."""


def answered(response: str) -> str | None:
    """The text of the last answer tags, without surrounding whitespace; None without such."""
    found = _ANSWER.inside(response)
    return found[-1].strip() if found else None


def last_number(response: str) -> str | None:
    """The last number of a response as it stands there; None: it has none."""
    found = _NUMBER.findall(response)
    return str(found[-1]) if found else None


def number(text: str) -> Decimal | None:
    """The last number of a text; separators of thousands do not count. None: it has none.

    After GSM8K's mark for the final answer, only what follows the mark is read.
    """
    found = _NUMBER.findall(text.rpartition(GSM_MARK)[2])
    return Decimal(found[-1].replace(",", "")) if found else None


def is_right(given: str | None, wanted: str, compare: Compare) -> bool:
    """Whether an answer is the wanted one: as a number, or as a text without regard to case and spacing."""
    if given is None:
        return False
    if compare == "number":
        value = number(given)
        return value is not None and value == number(wanted)
    return " ".join(given.split()).casefold() == " ".join(wanted.split()).casefold()
