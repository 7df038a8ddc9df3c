"""The benchmarks run; their figures are read by people."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toys.asked import on_request

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


def bench(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.e2e
def test_capacity_prints_its_table_and_its_check() -> None:
    lines = bench("capacity.py").splitlines()
    whole = next(line for line in lines if line.startswith("Llama-3.1-70B") and "own" in line)
    assert re.search(r" 1024 +1 +8x8 .*does not fit \(play\): .*tensor parallel", whole)
    printed = bench("capacity.py", "--check")
    ratios = re.findall(r"^(?:total|update|reference.*?) +\d.* (\d\.\d+)$", printed, re.MULTILINE)
    assert len(ratios) == 6
    assert all(0.8 < float(ratio) < 1.25 for ratio in ratios)


@pytest.mark.slow
@on_request
def test_the_gpu_benchmark_runs_on_a_cpu_with_tiny_shapes(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    bench("gpu.py", "--device", "cpu", "--tiny", "--budget", "600", "--out", str(out))
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == ["machine", "equality", "default", "0.5B", "1.5B", "3B"]
    for name, part in parts.items():
        assert (part["state"], part["errors"]) == ("done", {}), name
    assert parts["equality"]["figures"]["log_probs_fp32_largest"] == 0
    assert parts["3B"]["figures"]["iteration, append update_s"] > 0


@pytest.mark.slow
def test_a_part_without_time_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    asked = ["--device", "cpu", "--tiny", "--budget", "6", "--parts", "equality,machine"]
    told = bench("gpu.py", *asked, "--out", str(out))
    parts = json.loads(out.read_text())["parts"]
    assert parts["equality"]["state"].startswith("stopped after")
    assert parts["machine"]["state"] == "no time left"
    assert "equality (stopped after" in told
