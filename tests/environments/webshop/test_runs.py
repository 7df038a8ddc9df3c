"""Whole tiny runs in the shop: both contexts, and two processes that learn the same as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos.forked import start_program, wait
from sdar.commands.train import main

RUN = (
    "environment=webshop",
    "environment.data_dir=null",
    "experiment=smoke",
    "environment.max_turns=6",
    "rollout.sampling.max_response_tokens=40",
    "threads=1",
)

pytestmark = pytest.mark.e2e


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a run of one process in each context."""
    folders = {context: tmp_path_factory.mktemp(context) / "run" for context in ("append", "window")}
    for context, folder in folders.items():
        assert main([*RUN, f"rollout={context}", f"run_dir={folder}"]) == 0
    return folders


@pytest.mark.parametrize("context", ["append", "window"])
def test_a_run_ends_with_a_table(context: str, runs: dict[str, Path]) -> None:
    found = results(runs[context])
    rows = {result["name"]: result for result in found["results"]}
    assert found["panel"]["split"] == "test"
    assert rows["expert"]["successes"] == rows["expert"]["n"] == 6
    assert rows["random admissible agent"]["n"] == 6
    assert found["training"]["iterations"] == 2
    assert all(result["errors"] == 0 for result in rows.values())


def test_two_processes_play_and_learn_what_one_does(runs: dict[str, Path], tmp_path: Path) -> None:
    """The first starts the second, as on a machine of several devices."""
    two = ("rollout=append", "trainer=ddp", "trainer.accelerator=cpu", f"run_dir={tmp_path / 'two'}")
    log = tmp_path / "log"
    assert wait([start_program([*RUN, *two], tmp_path, {}, log, log)]) == [0], log.read_text()
    alone, together = results(runs["append"]), results(tmp_path / "two")
    assert together["training"]["content_hash"] == alone["training"]["content_hash"]
    assert [result["tasks"] for result in together["results"]] == [result["tasks"] for result in alone["results"]]
