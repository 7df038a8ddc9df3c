"""Whole tiny runs in the shop: both contexts, and two processes that learn the same as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUN = (
    "environment=webshop",
    "environment.data_dir=null",
    "experiment=smoke",
    "environment.max_turns=6",
    "threads=1",
)

pytestmark = pytest.mark.e2e


def run(folder: Path, *settings: str) -> dict:
    command = [sys.executable, str(ROOT / "train.py"), *RUN, f"run_dir={folder}", *settings]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment.pop("WEBSHOP_DATA", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("context", ["append", "window"])
def test_a_run_ends_with_a_table(context: str, tmp_path: Path) -> None:
    found = run(tmp_path / "run", f"rollout={context}")
    results = {result["name"]: result for result in found["results"]}
    assert found["panel"]["split"] == "test"
    assert results["expert"]["successes"] == results["expert"]["n"] == 6
    assert results["random admissible agent"]["n"] == 6
    assert found["training"]["iterations"] == 2
    assert all(result["errors"] == 0 for result in results.values())


def test_two_processes_play_and_learn_what_one_does(tmp_path: Path) -> None:
    settings = ("rollout.sampling.max_response_tokens=40", "evaluation.baselines=false")
    alone = run(tmp_path / "alone", *settings)
    together = run(tmp_path / "together", *settings, "trainer=ddp", "trainer.accelerator=cpu")
    assert together["training"]["content_hash"] == alone["training"]["content_hash"]
    assert [result["tasks"] for result in together["results"]] == [result["tasks"] for result in alone["results"]]
