"""Promises of settings: types and ranges hold from Python as they do from a configuration file."""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st

from sdar.config.fields import AtLeastOne, BelowOne, Fraction, Lax, Temperature, checked, fits, settings
from sdar.config.words import describe
from sdar.errors import UserError


class Source(StrEnum):
    OLD = "old"
    NEW = "new"


@settings(frozen=True)
class Inner:
    rate: BelowOne = 0.5


@settings(frozen=True)
class Outer:
    count: AtLeastOne
    inner: Inner = Inner()
    pair: Annotated[tuple[int, int], Lax] = (1, 2)
    source: Annotated[Source, Lax] = Source.OLD
    limit: Annotated[float, Gt(1)] | None = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise UserError("count must not be 13")


FITS: list[tuple[Any, Any, bool]] = [
    (1, int, True),
    (True, int, False),
    (1.0, int, False),
    (1, float, True),
    (True, float, False),
    ("1", float, False),
    (None, int | None, True),
    ([1, 2], tuple[int, int], True),
    ([1, 2, 3], tuple[int, int], False),
    ([1, "x"], list[int], False),
    ("x", list[str], False),
    ("a", Literal["a", "b"], True),
    ("c", Literal["a", "b"], False),
    ("p", Path, True),
    (3, Path, False),
    (Path("p"), str | Path, True),
    (Path("p"), int, False),
    ("old", Source, True),
    ("young", Source, False),
    (2, Annotated[int, Ge(2)], True),
    (1, Annotated[int, Ge(2)], False),
    (None, Annotated[int, Ge(2)] | None, True),
    ({"a": 1}, dict[str, int], True),
    ({"a": "b"}, dict[str, int], False),
    ("text", Inner, False),
    (math.nan, float, False),
    (math.inf, float, False),
    (2**32, int, True),
    (2**32 + 1, int, False),
    (10**400, int, False),
    (1e300, float, False),
    (1e-300, float, True),
    (0.0, float, True),
    ([1.0, 1e300], list[float], False),
    ("a" * 10_000, str, True),
    ("a" * 10_001, str, False),
    ("a\0b", str, False),
    ("\x1b[31m", str, False),
    ("two\nlines\t", str, True),
    (0, Temperature, True),
    (0.01, Temperature, True),
    (0.009, Temperature, False),
    (101, Temperature, False),
]


@pytest.mark.parametrize(("value", "hint", "expected"), FITS)
def test_values_fit_annotations_as_a_reader_would_say(value: Any, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected
    assert describe(hint)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_setting_takes_a_number_over_all_measure(value: float) -> None:
    assert fits(value, float) is (abs(value) <= 2**32)


@given(bound=st.floats(-10, 10), value=st.floats(-10, 10))
def test_a_range_holds_its_bounds_as_it_says(bound: float, value: float) -> None:
    assert fits(value, Annotated[float, Ge(bound)]) is (value >= bound)
    assert fits(value, Annotated[float, Gt(bound)]) is (value > bound)
    assert fits(value, Annotated[float, Le(bound)]) is (value <= bound)
    assert fits(value, Annotated[float, Lt(bound)]) is (value < bound)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"count": 0}, "Outer.count must be a whole number >= 1, got 0"),
        ({"count": True}, "Outer.count must be a whole number >= 1, got true"),
        ({"count": "3"}, "Outer.count must be a whole number >= 1, got '3'"),
        ({"count": 1, "limit": 1.0}, "Outer.limit must be a number > 1 or null, got 1.0"),
        ({"count": 1, "limit": math.nan}, "Outer.limit must be a number > 1 or null, got nan"),
        (
            {"count": 1, "limit": 1e300},
            "Outer.limit must be a number > 1 or null, got 1e+300, which is over 4294967296",
        ),
        ({"count": 10**10}, "Outer.count must be a whole number >= 1, got 10000000000, which is over 4294967296"),
        ({"count": 1, "source": "young"}, "Outer.source must be 'old' or 'new', got 'young'"),
        ({"count": 1, "inner": {"rate": 0.1}}, "Outer.inner must be an object (Inner)"),
        ({"count": 1, "pair": (1,)}, "Outer.pair must be a list of 2 whole numbers, got (1,)"),
        ({"count": 1, "pair": (1, 2, 3)}, "Outer.pair must be a list of 2 whole numbers, got (1, 2, 3)"),
        ({}, "Outer.count is missing"),
        ({"count": 1, "cuont": 2}, "Outer has no setting cuont; it takes count, inner, pair, source, limit"),
        ({"count": 13}, "count must not be 13"),
    ],
)
def test_a_wrong_field_is_told_in_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Outer(**fields)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_temperature_is_told_with_its_zero() -> None:
    assert describe(Temperature) == "0 or a number >= 0.01 and <= 100"


def test_positional_and_inherited_fields_are_named() -> None:
    class Derived(Outer):
        """Adds nothing."""

    with pytest.raises(UserError, match=r"Derived\.count must be"):
        Derived(0)
    with pytest.raises(UserError, match="Outer has no setting 5"):
        Outer(1, Inner(), (1, 2), Source.OLD, 2.0, 6, 7)  # type: ignore[call-arg]


def test_settings_are_frozen_and_checked_when_replaced() -> None:
    made = Outer(3, pair=[4, 5], source="new")  # type: ignore[arg-type]
    assert (made.pair, made.source) == ((4, 5), Source.NEW)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.count = 4  # type: ignore[misc]
    with pytest.raises(UserError, match=r"Outer\.count"):
        dataclasses.replace(made, count=-1)
    assert dataclasses.replace(made, count=9).count == 9


def test_a_constructor_is_checked_where_its_arguments_are_plain() -> None:
    class Thing:
        @checked
        def __init__(self, size: AtLeastOne, *, share: Fraction = 0.5, other: Inner | None = None) -> None:
            self.size = size

    assert Thing(2, share=1, other=object()).size == 2  # type: ignore[arg-type]
    with pytest.raises(UserError, match="size must be a whole number >= 1, got 0"):
        Thing(0)
    with pytest.raises(UserError, match="share must be a number >= 0 and <= 1, got 2"):
        Thing(1, share=2)


@pytest.mark.parametrize("bound", [Ge, Gt, Le, Lt])
def test_a_limit_reads_the_same_whether_it_was_written_as_1_or_as_1_0(bound: type) -> None:
    # typing caches Annotated by equality, and Gt(1) == Gt(1.0): which of them a field holds depends on imports.
    assert describe(Annotated[float, bound(1.0)]) == describe(Annotated[float, bound(1)])
    assert "1.0" not in describe(Annotated[float, bound(1.0)])
