"""A comparison of real, tiny runs, and what pairs share."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sdar.compare import app, launcher
from sdar.processes import cores
from toys.models import save_tiny

pytestmark = pytest.mark.e2e

SETTINGS = [
    *("experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "model.path=tiny"),
    *("evaluation.panel_size=2", "callbacks.episodes.episodes_per_iteration=4"),
]
WHOLE = ["algorithm=grpo,sdar", "seed=0..1", *SETTINGS, "logs_dir=whole"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run in, with a model in it that takes a moment."""
    made = tmp_path_factory.mktemp("compared")
    save_tiny(made / "tiny")
    return made


@pytest.fixture(scope="module")
def told(folder: Path) -> str:
    """What is said by a comparison of two methods on two seeds.

    Real runs through the other launcher; the basic one is tested in test_launching.py.
    """
    pytest.importorskip("joblib")
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(StringIO()) as shown:
        patched.chdir(folder)
        assert app.main([*WHOLE, *(["jobs=2"] if cores() > 1 else [])]) == 0
    return shown.getvalue()


def test_two_methods_on_two_seeds_share_tasks_and_warm_start_and_are_reused(
    folder: Path, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert "4 of 4 runs" in told
    assert told.count("done after") == 4
    comparison = next(Path("whole/compare").iterdir())
    record = json.loads((comparison / "comparison.json").read_text())
    runs = {(run["method"], run["seed"]): run for run in record["runs"]}
    assert len(runs) == 4
    assert len({(run["panel"], run["initial_weights"], run["iterations"]) for run in runs.values()}) == 1
    assert all([point["iterations"] for point in run["curve"]] == [0, 0, 1, 1, 2, 2] for run in runs.values())
    tasks = {key: drawn(Path(run["folder"])) for key, run in runs.items()}
    for seed in (0, 1):
        assert tasks["grpo", seed] == tasks["sdar", seed]
        assert len(tasks["grpo", seed]) == 2 * 2 * 2  # iterations x tasks x members of a group
    assert tasks["grpo", 0] != tasks["grpo", 1]

    monkeypatch.setattr(launcher, "start", None)  # nothing is left to start
    assert app.main(WHOLE) == 0
    assert capsys.readouterr().out.count("reused") == 4


@pytest.mark.usefixtures("told")
def test_a_run_that_is_prolonged_has_the_figures_of_one_long_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    parts = ["algorithm=grpo,sdar", "seed=0", *SETTINGS, "logs_dir=parts"]
    assert app.main([*parts, "trainer.max_epochs=1"]) == 0
    capsys.readouterr()
    assert app.main([*parts, "trainer.max_epochs=2"]) == 0
    assert capsys.readouterr().out.count(": continues, ") == 2
    prolonged = finished(Path("parts"))
    assert prolonged.keys() == {("grpo", 0), ("sdar", 0)}
    for key, ours in prolonged.items():
        theirs = finished(Path("whole"))[key]
        assert ours["training"]["iterations"] == 2
        assert ours["results"] == theirs["results"]
        assert [untimed(point) for point in ours["evaluations"]] == [untimed(point) for point in theirs["evaluations"]]


def finished(logs: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The results of the runs in the newest comparison, by method and seed."""
    record = json.loads(max(logs.glob("compare/*/comparison.json"), key=lambda file: file.stat().st_mtime).read_text())
    return {
        (run["method"], run["seed"]): json.loads((Path(run["folder"]) / "results.json").read_text())
        for run in record["runs"]
    }


def untimed(point: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != "seconds"}


def drawn(run: Path) -> list[tuple[int, str, int]]:
    """Which tasks a run's episodes were played on: iteration, task, member of the group."""
    lines = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    return sorted((line["iteration"], line["task"], line["member"]) for line in lines)
