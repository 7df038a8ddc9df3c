"""A comparison of real, tiny runs, and what pairs share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import tiny_random_model, toy_tokenizer
from sdar.compare import app, launcher


@pytest.mark.e2e
def test_two_methods_on_two_seeds_share_tasks_and_warm_start_and_are_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = toy_tokenizer()
    for part in (
        tiny_random_model(vocab_size=len(tokenizer), hidden_size=16, num_layers=1, context_tokens=2048),
        tokenizer,
    ):
        part.save_pretrained("tiny")
    fixed = ["experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "model.path=tiny"]
    fixed += ["callbacks.episodes.episodes_per_iteration=4"]

    # Real runs through the other launcher; the basic one is tested in test_launching.py.
    pytest.importorskip("joblib")
    assert app.main(["algorithm=grpo,sdar", "seed=0..1", *fixed, *(["jobs=2"] if app.cores() > 1 else [])]) == 0
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


def drawn(run: Path) -> list[tuple[int, str, int]]:
    """Which tasks a run's episodes were played on: iteration, task, member of the group."""
    lines = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    return sorted((line["iteration"], line["task"], line["member"]) for line in lines)
