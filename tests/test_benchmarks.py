"""The benchmarks run; their figures are read by people."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.e2e
def test_append_feeds_fewer_tokens_than_window() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "append_vs_window.py"), "--games", "3"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^ *(\D+?) +\d+ +\d+ +(\d\.\d+)$", done.stdout, re.MULTILINE)
    assert len(lines) == 2 * 7  # seven figures for each of two players
    for name, ratio in lines:
        assert float(ratio) < (0.5 if name == "teacher" else 0.7), (name, ratio)
