"""The benchmarks run; their figures are read by people."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdar.run.folder import occupied
from toys.asked import on_request

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
reused_runs = importlib.import_module("reused_runs")
sys.path.pop(0)


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


def bench(script: str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


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
    told = bench("gpu.py", *asked, "--out", str(out), code=1)
    parts = json.loads(out.read_text())["parts"]
    assert parts["equality"]["state"].startswith("stopped after")
    assert parts["machine"]["state"] == "no time left"
    assert "equality (stopped after" in told


STUB = """
import json, pathlib, sys
given = dict(word.split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(given["run_dir"])
folder.mkdir()  # as the real one, which refuses a folder with a run in it
(folder / "events").write_text("some iterations")
if given["seed"] == "3":
    sys.exit(1)
(folder / "run.json").write_text(json.dumps({"command": ["sdar", "train", *sys.argv[1:]]}))
(folder / "results.json").write_text("{}")
"""


def test_runs_of_a_benchmark_are_made_once_and_a_failed_one_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "train.py"
    stub.write_text(STUB)
    monkeypatch.setattr(reused_runs, "TRAIN", stub)
    wanted = {tmp_path / f"run{seed}": ["algorithm=grpo", f"seed={seed}"] for seed in (1, 2)}
    reused_runs.make(wanted, jobs=2)
    made = {folder: (folder / "results.json").stat().st_mtime_ns for folder in wanted}
    reused_runs.make(wanted, jobs=1)
    assert made == {folder: (folder / "results.json").stat().st_mtime_ns for folder in wanted}

    failing = {**wanted, tmp_path / "run3": ["seed=3"]}
    for _ in range(2):  # again: what it left is in nobody's way
        with pytest.raises(SystemExit, match="failed: run3"):
            reused_runs.make(failing, jobs=2)
    (tmp_path / "run1" / "results.json").unlink()  # stopped in between
    reused_runs.make(wanted, jobs=1)

    with pytest.raises(SystemExit, match=r"run2 has a run with algorithm=grpo seed=2, not algorithm=grpo .*beta=9"):
        reused_runs.make({tmp_path / "run2": ["algorithm=grpo", "seed=2", "gate.beta=9"]}, jobs=1)
    with occupied(tmp_path / "run4"), pytest.raises(SystemExit, match=r"another process works in .*run4"):
        reused_runs.make({tmp_path / "run4": ["seed=4"]}, jobs=1)
