"""The comparisons that the documentation names: every command can be planned, and all methods are compared."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from sdar.compare.plan import make_plan
from sdar.compare.request import read_request
from sdar.config.sources import config_folder, groups

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = r"^    (?:sdar compare|python -m sdar\.compare) (.*)$"  # the second: as it was typed for docs/results.md
LINES = [
    line.partition("#")[0]
    for page in ("comparing.md", "skills.md", "results.md")
    for line in re.findall(COMMAND, (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " "), re.M)
]
ALL = next(line for line in LINES if "comparison/" in line)


@pytest.mark.parametrize("line", LINES)
def test_every_documented_comparison_can_be_planned(line: str) -> None:
    """With its first seed: the others compose alike."""
    request = read_request(shlex.split(line))
    plan = make_plan(replace(request, seeds=request.seeds[:1]))
    assert len(plan.jobs) == len(plan.methods) > 1


def test_all_methods_that_are_trained_are_compared_and_the_variants_of_opsd_are_not() -> None:
    variants = {"opsd_release", "grpo_opsd_release", "grpo_opsd_initial", "sdar_ema"}  # the last two are the map's
    methods = set(groups(config_folder())["algorithm"]) - {"skill_prompt", *variants}
    files = {name for name in groups(config_folder())["experiment"] if name.startswith("comparison/")}
    assert files == {f"comparison/{name}" for name in methods}
    (swept,) = [word for word in shlex.split(ALL) if word.startswith("experiment=")]
    assert sorted(swept.removeprefix("experiment=").split(",")) == sorted(files)
    assert swept.startswith("experiment=comparison/grpo,")


def test_a_file_of_the_comparison_names_its_method_and_tunes_nothing_but_its_coefficient() -> None:
    """So that runs of the method alone are the same runs wherever its coefficient is the method's own."""
    tuned = ("distillation_coefficient", "weight", "step_weight", "learning_rate")
    # It is compared as it was measured, which the method's file no longer is.
    measured = {"agent_opsd": {"clip_high", "gamma", "statistics"}}
    for file in sorted((config_folder() / "experiment" / "comparison").glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"override /(\w+): (\w+)", text) == [("algorithm", file.stem)]
        leaves = re.findall(r"^ +(\w+): \S", text, re.M)
        own = set(leaves) - measured.get(file.stem, set())
        assert len(own) <= 1
        assert own <= set(tuned)
