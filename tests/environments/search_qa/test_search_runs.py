"""Whole tiny runs on Search-QA: both contexts, one and two processes, and questions from files over a real server."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from chaos.forked import fork_run
from sdar.commands.train import main
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.server import RetrievalServer
from sdar.environments.search_qa.world import World, WorldSettings
from toys.models import save_tiny

pytestmark = pytest.mark.e2e

SMALL = (
    "experiment=smoke",
    "environment=search_qa",
    "environment.num_tasks=[12,8]",
    "evaluation.panel_size=8",
    "evaluation.every_n_iterations=2",
    "threads=1",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random byte-level model: it never searches, and learns from penalties only."""
    return save_tiny(tmp_path_factory.mktemp("tiny"), context_tokens=4096)


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text())
    return found


@pytest.mark.parametrize("rollout", ["append", "window"])
def test_one_process_and_two_play_and_train_alike(
    tiny: Path, rollout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*SMALL, f"model.path={tiny}", f"rollout={rollout}"]
    assert main([*base, "run_dir=one"]) == 0
    shown = capsys.readouterr().out
    for part in ("closed book (no search)", "expert", "macro average", "exact_match", "multi_hop"):
        assert part in shown
    rows = {row["name"]: row for row in results("one")["results"]}
    assert rows["expert"]["success_rate"] == rows["expert"]["scores"]["f1"] == 1.0
    assert rows["closed book (no search)"]["success_rate"] < 0.3

    two = [*base, "run_dir=two", "trainer=ddp", "trainer.accelerator=cpu"]
    assert fork_run(two, tmp_path / "log", ranks=2) == [0, 0], (tmp_path / "log").read_text()
    for mine, other in zip(results("one")["results"], results("two")["results"], strict=True):
        assert (mine["name"], mine["tasks"], mine["task_turns"]) == (other["name"], other["tasks"], other["task_turns"])


def test_questions_from_files_are_played_over_a_server(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two splits as jsonl, typed by data set, with our server in this process; the one for training may be missing."""
    world = World(WorldSettings(), "train")
    for split, start in (("train", 0), ("test", 40)):
        asked = [world.question(index) for index in range(start, start + 12)]
        rows = [
            {"question": q.text, "golden_answers": [q.answer], "data_source": ("nq", "popqa")[number % 2]}
            for number, q in enumerate(asked)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = RetrievalServer(Bm25Retriever(world.passages))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        overrides = [
            *(setting for setting in SMALL if "num_tasks" not in setting),
            f"model.path={tiny}",
            f"environment.data_dir={tmp_path}",
            "search_engine=http",
            f"environment.search_engine.urls=[{server.url}]",
            "trainer.max_epochs=1",
            "run_dir=run",
        ]
        assert main(overrides) == 0
        (tmp_path / "train.jsonl").unlink()
        assert main([*overrides, "train=false", "run_dir=evaluation"]) == 0
        capsys.readouterr()
        assert main([*overrides, "run_dir=again"]) == 2
        assert "must contain train.jsonl or train.parquet to train" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert results("run")["panel"]["tasks_by_type"] == {"nq": 4, "popqa": 4}
    assert results("evaluation")["panel"] == results("run")["panel"]
    assert all(row["errors"] == 0 for row in results("run")["results"])
