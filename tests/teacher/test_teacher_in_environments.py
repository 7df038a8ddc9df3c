"""Strategies, texts and places in the real environments: whole runs that are stopped and go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdar.app import main

pytestmark = pytest.mark.e2e

SMALL = (
    "experiment=smoke",
    "threads=1",
    "rollout.tasks_per_iteration=3",
    "rollout.group_size=2",
    "rollout.sampling.max_response_tokens=24",
    "environment.max_turns=4",
    "evaluation.panel_size=4",
    "evaluation.every_n_iterations=100",
    "evaluation.baselines=false",
)
HOUSEHOLDS = ("environment=alfworld", "environment.data_dir=null", "environment.num_tasks=[24,6,6]")
SHOP = ("environment=webshop", "environment.data_dir=null")
QUESTIONS = ("environment=search_qa", "environment.num_tasks=[24,8]")


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param((*HOUSEHOLDS, "retrieval=ucb", "teacher.position=system", "rollout=window"), id="ucb"),
        pytest.param((*SHOP, "teacher=skills_and_demonstration", "teacher.position=before_template"), id="solved"),
        pytest.param((*QUESTIONS, "retrieval=random", "teacher.position=user_turn", "rollout=window"), id="random"),
    ],
)
def test_a_stopped_run_goes_on_with_the_texts_of_the_run_that_was_not(
    choices: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(name: str, iterations: int, *more: str) -> tuple[dict[str, torch.Tensor], list[str]]:
        settings = [*SMALL, *choices, f"run_dir={name}", f"trainer.max_epochs={iterations}", *more]
        assert main(settings) == 0
        checkpoint = torch.load(Path(name) / "checkpoints" / "last.ckpt", weights_only=True)
        return checkpoint["state_dict"], (Path(name) / "skills.jsonl").read_text().splitlines()

    whole, read = run("whole", 2)
    run("part", 1)
    resumed, read_again = run("rest", 2, "ckpt_path=part/checkpoints/last.ckpt")
    assert len(read) == 2
    assert read_again[-1] == read[-1]
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
