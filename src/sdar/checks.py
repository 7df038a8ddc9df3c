"""Checks of numbers that constructors share; the message names the setting, its value and what is allowed."""

from __future__ import annotations

import math

from sdar.errors import UserError


def check_positive(**settings: float) -> None:
    """UserError for the first setting that is not a finite number above 0."""
    for name, value in settings.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} is {value}, allowed are finite numbers above 0")


def check_not_negative(**settings: float) -> None:
    """UserError for the first setting that is not a finite number of at least 0."""
    for name, value in settings.items():
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{name} is {value}, allowed are finite numbers of at least 0")
