"""Readable names ("drawer 3") of the identifiers in a problem.

ALFWorld numbers the instances of a name downwards over the sorted identifiers (alfworld 0.4.2,
``agents/utils/misc.py``, class ``Demangler``), so the first identifier has the highest number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_SEPARATOR = "_bar_"
_PUNCTUATION = (("_bar_", "|"), ("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ","))


def readable_names(identifiers: Iterable[str]) -> dict[str, str]:
    """Map each identifier to its readable name."""
    ordered = sorted(identifiers)
    remaining = Counter(_base(identifier) for identifier in ordered if _SEPARATOR in identifier)
    names: dict[str, str] = {}
    for identifier in ordered:
        if _SEPARATOR not in identifier:
            # The original prints a missing number as "" after the space, so such a name ends with a space.
            names[identifier] = f"{_plain(identifier)} "
            continue
        base = _base(identifier)
        names[identifier] = f"{base} {remaining[base]}"
        remaining[base] -= 1
    return names


def _base(identifier: str) -> str:
    head = identifier.split(_SEPARATOR, 1)[0]
    return head + "basin" if "basin" in identifier else head


def _plain(identifier: str) -> str:
    for mangled, plain in _PUNCTUATION:
        identifier = identifier.replace(mangled, plain)
    return identifier
