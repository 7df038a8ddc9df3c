"""Tests of whole tables: continuous integration meets every row and every column, and all pairs on request."""

from __future__ import annotations

import os

import pytest

ALL = "SDAR_TEST_ALL" in os.environ
on_request = pytest.mark.skipif(
    not ALL, reason="minutes, for a pair of what others have singly; SDAR_TEST_ALL=1 runs it"
)
