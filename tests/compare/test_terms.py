"""What a run made now would be judged on, from the settings alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdar.compare.records import read_run
from sdar.compare.terms import PANEL, TASKS, check_present, present_terms
from sdar.errors import UserError
from toys.runs import make_run, results, settings_of

FEW = ("environment.num_tasks=[12,6,6]", "evaluation.panel_size=6")


def test_the_terms_are_those_of_the_tasks_and_not_of_the_method() -> None:
    now = present_terms(settings_of(*FEW))
    assert now[TASKS][0] == 12
    assert present_terms(settings_of(*FEW, "algorithm=grpo", "seed=5")) == now
    other = present_terms(settings_of(*FEW, "environment.generator.seed=9"))
    assert other[PANEL] != now[PANEL]
    assert other[TASKS][1] != now[TASKS][1]
    assert present_terms(settings_of(*FEW, "evaluation.seed=9"))[TASKS] == now[TASKS]


def test_a_run_on_other_tasks_is_refused_and_one_that_tells_nothing_of_them_is_not(tmp_path: Path) -> None:
    now = present_terms(settings_of(*FEW))
    tasks = {"tasks": 12, "content_hash": now[TASKS][1]}
    kept = {"panel": now[PANEL], "tasks": tasks}
    for change, mentioned in (
        ({}, None),
        ({"tasks": None}, None),
        ({"panel": "p" * 64}, "panel"),
        ({"tasks": tasks | {"tasks": 11}}, "training tasks: 11"),
    ):
        folder = make_run(tmp_path, FEW, results(**(kept | change)))  # type: ignore[arg-type]
        run = read_run(folder, {})
        assert run is not None
        if mentioned is None:
            check_present("sdar seed=1", run, now)
            continue
        with pytest.raises(UserError, match=rf"^sdar seed=1 \({folder}\).* {mentioned}") as caught:
            check_present("sdar seed=1", run, now)
        assert "\n" not in str(caught.value)
