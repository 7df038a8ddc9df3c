"""Strategies, texts and places in the real environments: whole runs that are stopped and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from commands.test_cli import curve
from sdar.commands.train import main
from toys.asked import on_request

pytestmark = pytest.mark.e2e

SMALL = (
    "experiment=smoke",
    "threads=1",
    "rollout.tasks_per_iteration=3",
    "rollout.group_size=2",
    "rollout.sampling.max_response_tokens=24",
    "environment.max_turns=4",
    "evaluation.panel_size=1",
    "evaluation.every_n_iterations=100",
    "evaluation.baselines=false",
)
ENVIRONMENTS = {
    "alfworld": ("environment=alfworld", "environment.data_dir=null", "environment.num_tasks=[24,6,6]"),
    "webshop": ("environment=webshop", "environment.data_dir=null"),
    "search_qa": ("environment=search_qa", "environment.num_tasks=[24,8]"),
}


READ = (
    *(f"retrieval={name}" for name in ("keyword", "task_type", "ucb", "random", "full", "bm25", "none", "adversarial")),
    "retrieval=ucb retrieval.reward=gap_on_success",
    *(
        f"teacher={name}"
        for name in ("sibling", "demonstration", "skills_and_demonstration", "hindsight", "hindsight_by_policy")
    ),
)
"""Every strategy of the skills, and every other text that a teacher may read."""
SOME_ARE_SOLVED = ("environment.max_turns=8", "rollout.group_size=4", "rollout.sampling.max_response_tokens=96")
"""What a teacher needs that reads solved attempts of the same task."""
EXPERTS_HAVE_TIME = ("environment.max_turns=8",)
"""What demonstrations need: in WebShop most goals take an expert more than the four turns of these runs."""
PLACES = ("before_template", "user_turn", "system")
CONTEXTS = ("append", "window")
QUICK = {
    ("alfworld", "retrieval=ucb"),
    ("webshop", "teacher=skills_and_demonstration"),
    ("search_qa", "retrieval=random"),
}


def cases() -> list[Any]:
    """Every text in every environment. Places and contexts take turns: each text has all of them somewhere.

    Where not all are asked for, environments take turns, too.
    """
    found: list[Any] = []
    for environment, settings in ENVIRONMENTS.items():
        for text in READ:
            turn = READ.index(text) + list(ENVIRONMENTS).index(environment)
            place, context = PLACES[turn % 3], CONTEXTS[turn % 2]
            if (environment, text) == ("alfworld", "teacher=sibling"):
                context = "append"  # its tiny model solves nothing in the other
            choices = (*settings, *text.split(), f"teacher.position={place}", f"rollout={context}")
            if "sibling" in text:
                choices += SOME_ARE_SOLVED
            elif "demonstration" in text:
                choices += EXPERTS_HAVE_TIME
            marks = [] if (environment, text) in QUICK else [pytest.mark.slow]
            met = (READ.index(text) - list(ENVIRONMENTS).index(environment)) % len(ENVIRONMENTS) == 0
            marks += [] if met or not marks else [on_request]
            found.append(pytest.param(choices, id=f"{environment} {text} {place} {context}", marks=marks))
    return found


def test_each_text_place_and_context_is_met_without_asking_for_all() -> None:
    met = [choices for case in cases() if on_request not in case.marks for choices in case.values]
    for wanted in (*READ, *(f"teacher.position={place}" for place in PLACES), *(f"rollout={c}" for c in CONTEXTS)):
        assert any(set(wanted.split()) <= set(choices) for choices in met), wanted


@pytest.mark.parametrize("choices", cases())
def test_a_stopped_run_goes_on_with_the_texts_of_the_run_that_was_not(
    choices: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(name: str, *more: str) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, float]]]:
        settings = [*SMALL, *choices, f"run_dir={name}", *more]
        assert main(settings) == 0
        checkpoint = torch.load(Path(name) / "checkpoints" / "last.ckpt", weights_only=True)
        return checkpoint["state_dict"], curve(Path(name))

    whole, figures = run("whole")
    # What a run leaves that is stopped in its second iteration.
    resumed, again = run("rest", "ckpt_path=whole/checkpoints/iteration-0001.ckpt")
    # Nothing is compared where there is nothing to read.
    assert any(figures["curriculum/teacher_context_fraction"].values()) == ("retrieval=none" not in choices)
    for name, points in figures.items():
        if 1 in points:
            assert again[name][1] == points[1], name
    if (log := Path("whole/skills.jsonl")).exists():
        assert log.read_text().splitlines()[1] == Path("rest/skills.jsonl").read_text().splitlines()[-1]
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
