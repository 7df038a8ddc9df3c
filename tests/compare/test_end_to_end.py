"""A comparison of real, tiny runs, and what pairs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdar.compare import app, launcher
from sdar.processes import cores
from toys.models import tiny_random_model, toy_tokenizer

SETTINGS = ["experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "model.path=tiny"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to run in, with a model in it that takes a moment."""
    monkeypatch.chdir(tmp_path)
    tokenizer = toy_tokenizer()
    for part in (
        tiny_random_model(vocab_size=len(tokenizer), hidden_size=16, num_layers=1, context_tokens=2048),
        tokenizer,
    ):
        part.save_pretrained("tiny")


@pytest.mark.e2e
@pytest.mark.usefixtures("tiny")
def test_two_methods_on_two_seeds_share_tasks_and_warm_start_and_are_reused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = [*SETTINGS, "callbacks.episodes.episodes_per_iteration=4"]

    # Real runs through the other launcher; the basic one is tested in test_launching.py.
    pytest.importorskip("joblib")
    assert app.main(["algorithm=grpo,sdar", "seed=0..1", *fixed, *(["jobs=2"] if cores() > 1 else [])]) == 0
    shown = capsys.readouterr().out
    assert "4 of 4 runs" in shown
    assert shown.count("done after") == 4
    folder = next(Path("logs/compare").iterdir())
    record = json.loads((folder / "comparison.json").read_text())
    runs = {(run["method"], run["seed"]): run for run in record["runs"]}
    assert len(runs) == 4
    assert len({(run["panel"], run["initial_weights"], run["iterations"]) for run in runs.values()}) == 1
    assert all([point["iterations"] for point in run["curve"]] == [0, 0, 1, 1, 2, 2] for run in runs.values())
    tasks = {key: drawn(Path(run["folder"])) for key, run in runs.items()}
    for seed in (0, 1):
        assert tasks["grpo", seed] == tasks["sdar", seed]
        assert len(tasks["grpo", seed]) == 2 * 2 * 2  # iterations x tasks x members of a group
    assert tasks["grpo", 0] != tasks["grpo", 1]

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "start", None)  # nothing is left to start
        assert app.main(["algorithm=grpo,sdar", "seed=0..1", *fixed]) == 0
    assert capsys.readouterr().out.count("reused") == 4


@pytest.mark.e2e
@pytest.mark.usefixtures("tiny")
def test_a_run_that_is_prolonged_has_the_figures_of_one_long_run(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["algorithm=sdar,grpo", "seed=3", *SETTINGS]
    assert app.main([*sweep, "logs_dir=whole", "trainer.max_epochs=3"]) == 0
    assert app.main([*sweep, "logs_dir=parts", "trainer.max_epochs=1"]) == 0
    capsys.readouterr()
    assert app.main([*sweep, "logs_dir=parts", "trainer.max_epochs=3"]) == 0
    assert capsys.readouterr().out.count(": continues, ") == 2
    whole, parts = finished(Path("whole")), finished(Path("parts"))
    assert len(whole) == len(parts) == 2
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours["training"]["iterations"] == 3
        assert ours["results"] == theirs["results"]
        assert [untimed(point) for point in ours["evaluations"]] == [untimed(point) for point in theirs["evaluations"]]


def finished(logs: Path) -> list[dict[str, Any]]:
    """The results of the runs in the newest comparison."""
    record = json.loads(max(logs.glob("compare/*/comparison.json"), key=lambda file: file.stat().st_mtime).read_text())
    return [json.loads((Path(run["folder"]) / "results.json").read_text()) for run in record["runs"]]


def untimed(point: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != "seconds"}


def drawn(run: Path) -> list[tuple[int, str, int]]:
    """Which tasks a run's episodes were played on: iteration, task, member of the group."""
    lines = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    return sorted((line["iteration"], line["task"], line["member"]) for line in lines)
