"""Promises about finding runs again: what counts as the same, what is continued, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdar.compare.app import look
from sdar.compare.plan import make_plan
from sdar.compare.records import Found, find_runs
from sdar.compare.request import read_request
from sdar.compare.terms import check_comparable, unsoundness
from sdar.errors import UserError
from sdar.run.identity import run_identity
from toys.runs import make_run, results, settings_of


def found(logs: Path, *overrides: str) -> Found:
    settings = settings_of(*overrides)
    return find_runs(logs, [settings])[run_identity(settings)]


def test_a_run_that_train_made_counts(tmp_path: Path) -> None:
    folder = make_run(tmp_path, ["seed=3"], results(after=55))
    run = found(tmp_path, "seed=3").finished
    assert run is not None
    assert run.folder == folder
    assert run.figures["trained"].rate == 0.55
    assert run.iterations == 40


@pytest.mark.parametrize(
    "other",
    ["trainer.max_epochs=41", "evaluation.panel_size=12", "evaluation.seed=1", "evaluation.sampling.temperature=1.0",
     "evaluation.split=valid_seen", "gate.beta=4", "seed=2", "algorithm=grpo"],
)  # fmt: skip
def test_a_run_of_other_length_panel_or_settings_does_not(tmp_path: Path, other: str) -> None:
    make_run(tmp_path, [other], results(iterations=41 if other == "trainer.max_epochs=41" else 40))
    assert found(tmp_path).finished is None
    assert found(tmp_path, other).finished is not None


@pytest.mark.parametrize(
    "other", ["threads=1", "logger=none", "evaluation.every_n_iterations=3", "evaluation.baselines=false", "name=x"]
)
def test_what_changes_no_figure_does_not_matter(tmp_path: Path, other: str) -> None:
    make_run(tmp_path, [other], results())
    assert found(tmp_path).finished is not None


def test_a_run_whose_skills_have_changed_does_not(tmp_path: Path) -> None:
    skills = tmp_path / "skills"
    skills.mkdir()
    (skills / "heat.md").write_text("---\nname: heat\nkind: general\n---\nUse the microwave.\n")
    make_run(tmp_path, [f"skills={skills}"], results())
    make_run(tmp_path, ["teacher=hindsight"], results())
    assert found(tmp_path, f"skills={skills}").finished is not None
    (skills / "heat.md").write_text("---\nname: heat\nkind: general\n---\nUse the stove.\n")
    assert found(tmp_path, f"skills={skills}") == Found()
    assert found(tmp_path, "teacher=hindsight").finished is not None  # reads no skills


def test_the_newest_finished_run_counts(tmp_path: Path) -> None:
    make_run(tmp_path, [], results(after=1), hours=1)
    newest = make_run(tmp_path, [], results(after=2), hours=2)
    make_run(tmp_path, [], None, hours=3, checkpoint=True)
    run = found(tmp_path).finished
    assert run is not None
    assert run.folder == newest


def test_an_unfinished_run_is_continued_from_its_newest_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, [], None, hours=1, checkpoint=True)
    newest = make_run(tmp_path, [], None, hours=2, checkpoint=True)
    make_run(tmp_path, [], None, hours=3)
    assert found(tmp_path) == Found(checkpoint=newest / "checkpoints" / "last.ckpt")


def test_a_finished_run_of_fewer_iterations_is_continued(tmp_path: Path) -> None:
    for number in (5, 20, 10):
        make_run(tmp_path, [f"trainer.max_epochs={number}"], results(iterations=number), checkpoint=True)
    longest = tmp_path / "longest"
    make_run(longest, ["trainer.max_epochs=30"], results(iterations=30))  # its checkpoint was removed
    make_run(longest, ["trainer.max_epochs=25", "evaluation.seed=1"], results(iterations=25), checkpoint=True)
    make_run(longest, ["trainer.max_epochs=50"], results(iterations=50), checkpoint=True)
    run = found(tmp_path, "trainer.max_epochs=20").finished
    assert run is not None
    assert found(tmp_path) == Found(checkpoint=run.folder / "checkpoints" / "last.ckpt")


def test_a_method_whose_schedule_ends_with_the_run_is_not_continued_from_a_shorter_one(tmp_path: Path) -> None:
    make_run(tmp_path, ["algorithm=rlsd", "trainer.max_epochs=20"], results(iterations=20), checkpoint=True)
    assert found(tmp_path, "algorithm=rlsd") == Found()
    fixed = ["algorithm=rlsd", "schedule.coefficient.zero_at=12"]
    shorter = make_run(tmp_path, [*fixed, "trainer.max_epochs=20"], results(iterations=20), checkpoint=True)
    assert found(tmp_path, *fixed) == Found(checkpoint=shorter / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", "{}", '{"results": 3}', '{"panel": {"content_hash": "x"}, "model": {}, "results": []}'],
)
def test_results_that_cannot_be_read_are_no_results(tmp_path: Path, damaged: str) -> None:
    folder = make_run(tmp_path, [], damaged)
    assert found(tmp_path) == Found(unreadable=(folder,))


def test_counts_that_cannot_be_are_no_results(tmp_path: Path) -> None:
    make_run(tmp_path, [], results(after=101))
    assert found(tmp_path).finished is None


def test_an_evaluation_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "some.ckpt").touch()
    make_run(tmp_path, ["train=false", f"ckpt_path={tmp_path}/some.ckpt"], results())
    assert found(tmp_path) == Found()


def test_damaged_records_of_other_runs_are_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path, [], results())
    for name, text in (("a", "{"), ("b", "[1]"), ("c", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    lost = make_run(tmp_path, [], results(), hours=5)
    (lost / "config.yaml").write_text("a: [")
    assert found(tmp_path).finished is not None


def test_a_plan_finds_its_runs(tmp_path: Path) -> None:
    plan = make_plan(read_request(["algorithm=grpo,sdar", "seed=0..1", f"logs_dir={tmp_path}"]))
    assert [job.label for job in plan.jobs] == ["grpo seed=0", "sdar seed=0", "grpo seed=1", "sdar seed=1"]
    make_run(tmp_path, ["algorithm=sdar", "seed=1"], results())
    finished = {job.label for job in plan.jobs if look(plan)[job.identity].finished}
    assert finished == {"sdar seed=1"}


def test_the_folder_of_a_comparison_is_the_same_for_the_same_runs(tmp_path: Path) -> None:
    def folder(*more: str) -> Path:
        return make_plan(read_request(["algorithm=grpo,sdar", f"logs_dir={tmp_path}", *more])).folder

    assert folder("seed=1,2") == folder("seed=1..2", "threads=1")
    assert folder("seed=1,2") != folder("seed=1,3")
    assert folder("seed=1,2").parent == tmp_path / "compare"


@pytest.mark.parametrize(
    ("sweep", "mentioned"),
    [
        ("evaluation.panel_size=6,12", "evaluation.panel_size"),
        ("evaluation.sampling.temperature=0.4,1.0", "evaluation.sampling.temperature"),
        ("environment.max_turns=14,20", "environment.max_turns"),
        ("environment.generator.seed=0,1", "environment.generator.seed"),
        ("model.path=alfworld,alfworld_seed1", "model.path"),
        ("model.dtype=float32,bfloat16", "model.dtype"),
        ("trainer.max_epochs=10,20", "trainer.max_epochs"),
        ("rollout.tasks_per_iteration=6,12", "tasks_per_iteration"),
    ],
)
def test_a_sweep_over_what_pairs_must_share_is_refused(sweep: str, mentioned: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(read_request([sweep]))
    assert mentioned in str(caught.value)
    assert "\n" not in str(caught.value)


def test_methods_that_are_the_same_are_refused() -> None:
    with pytest.raises(UserError, match="are the same run"):
        make_plan(read_request(["logger=none,tensorboard", "seed=1,2"]))


def test_a_method_that_trains_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"^skill_prompt sets train=false"):
        make_plan(read_request(["algorithm=grpo,skill_prompt", "seed=1,2"]))


def test_adapters_of_different_ranks_start_from_the_same_weights() -> None:
    assert len(make_plan(read_request(["model.lora.rank=4,8", "seed=1,2"])).jobs) == 4


def test_one_mistake_in_a_sweep_is_told_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"gate\.beta must be a number >= 0, got -1"):
        make_plan(read_request(["gate.beta=1,-1", "seed=1,2"]))


@pytest.mark.parametrize(
    ("different", "mentioned"),
    [
        ({"panel": "q" * 64}, "panel"),
        ({"weights": "v" * 64}, "warm start"),
        ({"tasks": {"tasks": 900, "content_hash": "t" * 64}}, "training tasks: 960"),
        ({"tasks": {"tasks": 960, "content_hash": "u" * 64}}, "training tasks"),
    ],
)
def test_runs_on_unequal_terms_are_refused_naming_the_difference(
    tmp_path: Path, different: dict[str, object], mentioned: str
) -> None:
    make_run(tmp_path, ["seed=1"], results())
    make_run(tmp_path, ["seed=2"], results())
    other = make_run(tmp_path, ["seed=3"], results(**different))  # type: ignore[arg-type]
    runs = {f"seed={seed}": found(tmp_path, f"seed={seed}").finished for seed in (1, 2, 3)}
    check_comparable({name: run for name, run in runs.items() if run and name != "seed=3"})
    with pytest.raises(UserError) as caught:
        check_comparable({name: run for name, run in runs.items() if run})
    assert mentioned in str(caught.value)
    assert str(other) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "change", "error"),
    [
        ("trained", {"n": 98, "errors": 2}, "2 of 100 episodes of 'trained' ended by errors"),
        ("trained, with skills", {"n": 0, "successes": 0, "errors": 6}, "6 of 6 episodes of 'trained, with skills'"),
        ("trained", {"n": 0, "successes": 0, "errors": 6}, "6 of 6 episodes of 'trained' ended"),
        ("warm start", {"errors": 1}, "1 of 101 episodes of 'warm start' ended by errors"),
        ("random admissible agent", {"errors": 1}, None),
    ],
)
def test_a_run_that_was_judged_on_less_than_its_panel_is_refused(
    tmp_path: Path, row: str, change: dict[str, int], error: str | None
) -> None:
    outcome = results()
    next(found for found in outcome["results"] if found["name"] == row).update(change)
    folder = make_run(tmp_path, ["seed=1"], outcome)
    run = found(tmp_path, "seed=1").finished
    assert run is not None
    told = unsoundness("grpo seed=1", run)
    if error is None:
        assert told is None
        return
    assert told is not None
    assert told.startswith(f"grpo seed=1 ({folder}): ")
    assert error in told
    assert "so it cannot be compared; remove" in told


def test_a_run_that_a_callback_ended_early_is_not_the_whole_one(tmp_path: Path) -> None:
    make_run(tmp_path, [], results(iterations=12))
    assert found(tmp_path).finished is None
    make_run(tmp_path, ["trainer.max_time=00:00:10:00"], results(iterations=12))
    assert found(tmp_path, "trainer.max_time=00:00:10:00").finished is not None


def test_what_ends_runs_at_different_iterations_or_mixes_their_checkpoints_is_refused(tmp_path: Path) -> None:
    for setting, said in (
        (
            "callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/success_rate}",
            "callbacks.stop",
        ),
        (f"callbacks.checkpoint.directory={tmp_path}", "callbacks.checkpoint.directory"),
    ):
        with pytest.raises(UserError, match=said):
            make_plan(read_request(["algorithm=grpo,sdar", "seed=0,1", setting]))


def test_figures_of_another_search_server_are_others(tmp_path: Path) -> None:
    searching = ("environment=search_qa", "search_engine=http", "environment.search_engine.urls=[http://one/retrieve]")
    other = (*searching[:2], "environment.search_engine.urls=[http://other/retrieve]")
    make_run(tmp_path, searching, results())
    assert found(tmp_path, *searching).finished is not None
    assert found(tmp_path, *other).finished is None


def test_records_without_training_tasks_are_compared_by_the_rest(tmp_path: Path) -> None:
    make_run(tmp_path, ["seed=1"], results())
    make_run(tmp_path, ["seed=2"], results(tasks=None))
    runs = {f"seed={seed}": found(tmp_path, f"seed={seed}").finished for seed in (1, 2)}
    check_comparable({name: run for name, run in runs.items() if run})
