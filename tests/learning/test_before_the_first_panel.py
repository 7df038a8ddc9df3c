"""What makes a run useless is said before the first evaluation is played."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdar.commands.train import main
from toys.models import save_tiny

pytestmark = pytest.mark.e2e

SMALL = ("experiment=smoke", "threads=1", "model=hf", "environment.data_dir=null", "evaluation.panel_size=2")


@pytest.fixture(autouse=True)
def no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def played(*_: object, **__: object) -> None:
        raise AssertionError("a panel was played")

    monkeypatch.setattr("sdar.callbacks.evaluation.evaluate", played)


@pytest.mark.parametrize(("rollout", "train"), [("append", "true"), ("window", "true"), ("append", "false")])
def test_a_context_without_room_for_a_response_ends_the_run_with_both_numbers(
    rollout: str, train: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model", context_tokens=200)
    settings = [*SMALL, f"rollout={rollout}", f"train={train}", f"model.name={model}", f"run_dir={tmp_path / 'run'}"]
    assert main(settings) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"error: the model '{model}' has a context of 200 tokens here, but the first prompt of task " in told
    assert not list(tmp_path.glob("run/results.json"))


def test_task_types_without_a_skill_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the mapping of the release's ALFWorld folder, two keys of which are left out."""
    skills = tmp_path / "skills"
    skills.mkdir()
    for name in ("general_skills", "place", "heat"):
        (skills / f"{name}.md").write_text(f"# {name}\n\nDo {name}.\n")
    files = {name: f"{name}.md" for name in ("general_skills", "place", "heat")}
    keys = {"pick_and_place": "place", "pick_two_obj_and_place": "place", "pick_heat_then_place_in_recep": "heat"}
    (skills / "skill_mapping.json").write_text(json.dumps({"skill_files": files, "task_to_skill": keys}))
    model = save_tiny(tmp_path / "model", context_tokens=200)
    settings = [*SMALL, f"skills={skills}", "retrieval=task_type", "environment.num_tasks=[60,6,6]"]
    assert main([*settings, f"model.name={model}", f"run_dir={tmp_path / 'run'}"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "the retrieval finds only general skills for the training tasks of the types look_at_obj_in_light, "
        "pick_clean_then_place_in_recep, pick_cool_then_place_in_recep; sdar skills check" in told
    )
