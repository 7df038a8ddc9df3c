"""A problem of two whole numbers, and its written calculation, digit by digit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Operation = Literal["sum", "difference", "product"]
OPERATIONS: tuple[Operation, ...] = ("sum", "difference", "product")
SIGNS: dict[Operation, str] = {"sum": "+", "difference": "-", "product": "*"}
TWO_DIGITS = (10, 99)


@dataclass(frozen=True)
class Problem:
    """Numbers in [0, 99]; ``second`` of a difference is at most ``first``, of a product in [2, 9]."""

    operation: Operation
    first: int
    second: int

    @property
    def text(self) -> str:
        """As it is asked."""
        return f"{self.first} {SIGNS[self.operation]} {self.second}"

    @property
    def result(self) -> int:
        """What it comes to."""
        if self.operation == "sum":
            return self.first + self.second
        return self.first - self.second if self.operation == "difference" else self.first * self.second

    def calculation(self) -> tuple[str, str]:
        """The written calculation: of the ones, and of the tens with what was carried."""
        (tens, ones), (other_tens, other_ones) = divmod(self.first, 10), divmod(self.second, 10)
        if self.operation == "product":
            carry = ones * self.second // 10
            return (
                f"{ones} * {self.second} = {ones * self.second}, carry {carry}",
                f"{tens} * {self.second} + {carry} = {tens * self.second + carry}",
            )
        if self.operation == "sum":
            carry = int(ones + other_ones > 9)
            return (
                f"{ones} + {other_ones} = {ones + other_ones}, carry {carry}",
                f"{tens} + {other_tens} + {carry} = {tens + other_tens + carry}",
            )
        borrow = int(ones < other_ones)
        return (
            f"{10 * borrow + ones} - {other_ones} = {10 * borrow + ones - other_ones}, borrow {borrow}",
            f"{tens} - {borrow} - {other_tens} = {tens - borrow - other_tens}",
        )

    def without_carry(self) -> int:
        """What comes out where the carry is forgotten: a wrong result, or the right one where there is none."""
        (tens, ones), (other_tens, other_ones) = divmod(self.first, 10), divmod(self.second, 10)
        if self.operation == "product":
            return 10 * (tens * self.second) + ones * self.second % 10
        if self.operation == "sum":
            return 10 * (tens + other_tens) + (ones + other_ones) % 10
        return 10 * (tens - other_tens) + (ones - other_ones) % 10


def all_problems(operation: Operation, numbers: tuple[int, int] = TWO_DIGITS) -> list[Problem]:
    """Every problem of an operation, in order. ``numbers``: the least and the largest one; of a product, the first."""
    least, largest = numbers
    firsts = range(least, largest + 1)
    if operation == "product":
        return [Problem(operation, first, second) for first in firsts for second in range(2, 10)]
    return [
        Problem(operation, first, second)
        for first in firsts
        for second in range(least, (largest if operation == "sum" else first) + 1)
    ]


def dealt(operation: Operation, rng: np.random.Generator, numbers: tuple[int, int] = TWO_DIGITS) -> list[Problem]:
    """Every problem of an operation in a random order."""
    problems = all_problems(operation, numbers)
    return [problems[place] for place in rng.permutation(len(problems))]
