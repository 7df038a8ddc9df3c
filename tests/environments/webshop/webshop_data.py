"""The original data, if available, and goals from its records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdar.environments.webshop.goals import Goal

FOLDER = Path(os.environ.get("SDAR_TEST_DATA", "no-test-data")) / "webshop"

needs_data = pytest.mark.skipif(
    not (FOLDER / "items_shuffle_1000.json").is_file(), reason="SDAR_TEST_DATA names no folder with webshop's files"
)


def lines(name: str) -> Iterator[dict[str, Any]]:
    with (FOLDER / name).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def recorded_goal(record: dict[str, Any]) -> Goal:
    options = record["goal_options"]
    return Goal(
        asin=record["asin"],
        instruction=record["instruction_text"],
        attributes=tuple(record["attributes"]),
        options=tuple(options.items()) if isinstance(options, dict) else tuple(options),
        price_upper=record["price_upper"],
        query=record["query"],
        name=record["name"],
        category="",
        product_category=record["product_category"],
    )
