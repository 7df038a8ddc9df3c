"""A dataset of which only an evaluation split was downloaded is enough to evaluate, and is refused for training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdar.commands.train import main
from sdar.environments.alfworld.generator import GeneratorSettings, HouseholdGenerator


@pytest.mark.e2e
@pytest.mark.parametrize("split", ["valid_unseen", "valid_seen"])
def test_one_split_is_enough_to_evaluate(tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    generator = HouseholdGenerator(GeneratorSettings())
    for number in range(2):
        game = generator.game(split, number)
        folder = tmp_path / "data" / "json_2.1.1" / split / game.task_type / f"trial_{number}"
        folder.mkdir(parents=True)
        task = {"task": [{"rhs": f"Your task is to: {game.task_text}."}]}
        document = {
            "grammar": f'grammar :: """ {json.dumps(task)} """; template :: "move {{o}} to {{r}}";',
            "pddl_problem": game.problem,
            "solvable": True,
            "walkthrough": list(game.walkthrough),
        }
        (folder / "game.tw-pddl").write_text(json.dumps(document))
    settings = ["experiment=smoke", f"environment.data_dir={tmp_path / 'data'}", "evaluation.panel_size=2", "threads=1"]
    assert main([*settings, "train=false", f"run_dir={tmp_path / 'run'}"]) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["panel"]["split"] == split
    capsys.readouterr()
    assert main([*settings, f"run_dir={tmp_path / 'training'}"]) == 2
    told = capsys.readouterr().err
    assert "environment.data_dir must contain json_2.1.1/train to train" in told
    assert told.count("\n") == 1
