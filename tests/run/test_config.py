"""Promises of the configuration: what composes, and that every mistake is told in one sentence before any work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from config_cases import WRONG_SETTINGS
from sdar.config.compose import sweep
from sdar.config.signatures import find, signature
from sdar.config.sources import config_folder, groups
from sdar.config.targets import defined
from sdar.errors import UserError
from sdar.run.folder import config_hash, find_runs, git_revision, new_run_folder, read_config, write_run_folder
from sdar.run.rules.renamed import RENAMED
from sdar.run.validate import compose

CHOICES = [
    (group, option)
    for group, options in groups(config_folder()).items()
    for option in options
    if group != "experiment"  # the others have tests of their own
]


def settings_of(*overrides: str) -> dict[str, Any]:
    return dict(compose(overrides).config)


def needed_beside(group: str, option: str) -> list[str]:
    """Settings without which a choice cannot be: a model must have a name, a method without a teacher."""
    return {
        ("model", "hf"): ["model.name=some/model"],
        ("teacher", "none"): ["algorithm=grpo"],
        ("loss_aggregation", "reference_code"): ["rollout=window"],
        ("divergence", "skill_sd"): ["gate=none"],
        ("divergence", "reverse_kl"): ["teacher.source=current"],
        ("divergence", "forward_kl"): ["teacher.source=ema"],
        ("divergence", "jsd"): ["teacher.keep_hidden=true"],
        ("trainer", "gpu"): ["trainer.accelerator=auto"],
        ("search_engine", "dense"): ["environment=search_qa", "environment.search_engine.corpus=corpus.jsonl"],
        ("search_engine", "http"): ["environment=search_qa"],
        ("search_engine", "bm25"): ["environment=search_qa", "environment.search_engine.corpus=corpus.jsonl"],
    }.get((group, option), [])


@pytest.mark.parametrize(("group", "option"), CHOICES)
def test_smoke_composes_with_every_option_of_every_group(group: str, option: str) -> None:
    overrides = [f"{group}={option}", *needed_beside(group, option)]
    settings = settings_of("experiment=smoke", *overrides)
    assert settings["trainer"]["max_epochs"] == 2
    assert settings["rollout"]["tasks_per_iteration"] == 2


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_a_wrong_setting_is_told_in_one_sentence(name: str) -> None:
    overrides, mentioned = WRONG_SETTINGS[name]
    with pytest.raises(UserError) as caught:
        settings_of(*overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for part in mentioned:
        assert part in message


def test_a_setting_that_no_file_mentions_is_taken_when_the_constructor_knows_it() -> None:
    assert settings_of("trainer.detect_anomaly=true")["trainer"]["detect_anomaly"] is True


def test_the_command_line_wins_over_experiment_and_method() -> None:
    settings = settings_of("experiment=smoke", "trainer.max_epochs=7", "algorithm=grpo", "name=mine")
    assert settings["trainer"]["max_epochs"] == 7
    assert settings["name"] == "mine"
    assert settings["algorithm"]["objective"]["distillation_coefficient"] == 0


def test_the_models_file_sets_the_response_limit_of_either_way_to_play() -> None:
    for rollout in ("append", "window"):
        settings = settings_of(f"rollout={rollout}", "model=hf", "model.name=some/model")
        assert settings["rollout"]["sampling"]["max_response_tokens"] == 512
        assert settings["rollout"]["context"] == rollout


def test_a_sweep_is_every_combination() -> None:
    assert sweep(["seed=1,2", "algorithm=grpo,sdar", "threads=1"]) == [
        [f"seed={seed}", f"algorithm={method}", "threads=1"] for seed in (1, 2) for method in ("grpo", "sdar")
    ]


def test_every_method_file_states_every_coefficient() -> None:
    """The files are the table of methods: none may leave a cell to a default."""

    def assert_complete(node: dict[str, Any], target: str) -> None:
        source = find(node.get("_target_", target))
        assert source is not None
        assert set(node) - {"_target_"} == set(signature(source).parameters), (name, target)

    for name in groups(config_folder())["algorithm"]:
        table = settings_of(f"algorithm={name}")["algorithm"]
        assert_complete(table, "")
        assert_complete(table["objective"], "sdar.objective.objective.ObjectiveConfig")
        for part in filter(None, (table["advantage"], table["shaping"], table["supervision"])):
            assert_complete(part, "")
        if table["objective"]["policy_length"] is not None:
            assert_complete(table["objective"]["policy_length"], "sdar.objective.objective.ConstantLength")


def test_only_what_is_defined_in_allowed_packages_is_built() -> None:
    for target in ("os.system", "subprocess.run", "torch.load", "sdar_evil.thing", 3):
        with pytest.raises(UserError, match="only objects of"):
            defined(target, "here")


@pytest.mark.parametrize(
    "target",
    [
        "sdar.run.folder.os.system",
        "sdar.commands.train.os.system",
        "sdar.compare.job.subprocess.run",
        "sdar.run.folder.subprocess.run",
        "lightning.pytorch.trainer.trainer.os.system",
        "sdar.config.build.importlib.import_module",
        "sdar.run.folder.yaml.unsafe_load",
    ],
)
def test_modules_are_never_walked_through_to_somebody_elses_objects(target: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks\.mine\._target_"):
        compose([f"+callbacks.mine={{_target_: {target}, command: touch {tmp_path / 'pwned'}}}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_refused_by_a_sentence_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([f"{old}=3"])
    assert f"{old} is now {new}" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("statistics=release", "loss_aggregation=reference_code"),
        ("statistics=episode", "loss_aggregation=token_mean"),
        ("gate.entropy_scale=normalised", "gate.entropy_scale=normalized"),
        (
            "algorithm.supervision={_target_: sdar.supervision.SolvedEpisodes}",
            "sdar.learning.supervision.SolvedEpisodes",
        ),
    ],
)
def test_an_old_choice_is_refused_by_a_sentence_with_the_new_one(override: str, new: str) -> None:
    with pytest.raises(UserError, match=f"is now {re.escape(new)}"):
        compose([override])


def test_no_renamed_setting_is_one_of_today() -> None:
    known = settings_of()
    for old in RENAMED:
        value: Any = known
        for name in old.split("."):
            value = value.get(name, {}) if isinstance(value, dict) else {}
        assert value == {}, old


def test_the_objects_of_validation_are_the_settings() -> None:
    settings = compose(["gate.beta=7", "rollout.group_size=4", "optimizer.betas=[0.8,0.9]", "evaluation.panel_size=6"])
    assert settings.method.objective.gate.beta == 7
    assert settings.rollout.group_size == 4
    assert settings.optimizer.betas == (0.8, 0.9)
    assert settings.evaluation.panel_size == 6
    assert settings.teacher is not None


def test_the_hash_ignores_what_may_change_on_resuming_and_nothing_else() -> None:
    base = config_hash(settings_of())
    for harmless in ("trainer.max_epochs=99", "run_dir=elsewhere", "logs_dir=elsewhere", "threads=1", "name=x"):
        assert config_hash(settings_of(harmless)) == base
    harmless_too = ("callbacks.curriculum.patience=9", "logger=none", "evaluation.panel_size=6")
    for harmless in (*harmless_too, "optimizer.max_bad_steps=9"):
        assert config_hash(settings_of(harmless)) == base
    for other in ("seed=2", "gate.beta=4", "algorithm=grpo", "rollout.group_size=4", "environment.max_turns=9"):
        assert config_hash(settings_of(other)) != base


def test_a_run_may_go_on_with_a_search_server_that_has_moved() -> None:
    searching = ("environment=search_qa", "search_engine=http")
    base = config_hash(settings_of(*searching))
    for harmless in ("urls=[http://elsewhere/retrieve]", "timeout_s=5", "attempts=1", "patience_s=9"):
        assert config_hash(settings_of(*searching, f"environment.search_engine.{harmless}")) == base
    assert config_hash(settings_of(*searching, "environment.top_k=5")) != base
    assert config_hash(settings_of("environment=search_qa")) != base


def test_last_is_the_newest_run_with_a_checkpoint_and_the_same_settings(tmp_path: Path) -> None:
    from datetime import datetime, timedelta

    start = datetime(2026, 1, 1)
    settings, other = settings_of(), settings_of("seed=2")
    for number, (these, finished) in enumerate([(settings, True), (settings, True), (settings, False), (other, True)]):
        when = start + timedelta(hours=number)
        folder = new_run_folder(tmp_path, "run", when)
        write_run_folder(folder, these, started=when, command=["x"], resumed_from=None)
        if finished:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "last.ckpt").touch()
    assert find_runs(tmp_path, config_hash(settings))[0].name == "2026-01-01_01-00-00"
    assert find_runs(tmp_path, config_hash(other))[0].name == "2026-01-01_03-00-00"
    with pytest.raises(UserError, match="ckpt_path=last: of the 3 runs"):
        find_runs(tmp_path, "0" * 16)


def test_a_run_folder_holds_what_is_needed_to_repeat_the_run(tmp_path: Path) -> None:
    import json
    from datetime import datetime

    when = datetime(2026, 1, 1)
    folder = new_run_folder(tmp_path, "run", when)
    settings = settings_of("seed=7")
    write_run_folder(folder, settings, started=when, command=["sdar", "train", "seed=7"], resumed_from=None)
    assert read_config(folder) == settings
    record = json.loads((folder / "run.json").read_text())
    assert record["seed"] == 7
    assert record["command"] == ["sdar", "train", "seed=7"]
    assert record["versions"]["torch"]
    assert record["git"] == git_revision()
    assert new_run_folder(tmp_path, "run", when) != folder


def test_the_hash_does_not_know_in_which_module_a_class_stands() -> None:
    """Classes move; a run's identity is its settings and choices."""
    settings = settings_of()
    moved = {**settings, "gate": {**settings["gate"], "_target_": "sdar.somewhere.else_.GapGate"}}
    other = {**settings, "gate": {**settings["gate"], "_target_": "sdar.objective.gate.NoGate"}}
    foreign = {**settings, "gate": {**settings["gate"], "_target_": "theirs.objective.gate.GapGate"}}
    assert config_hash(moved) == config_hash(settings)
    assert config_hash(other) != config_hash(settings)
    assert config_hash(foreign) != config_hash(settings)


def test_a_run_of_an_earlier_version_is_named_where_it_cannot_be_recognized(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "run.json").write_text('{"config_hash": "abc", "started": "2026"}')
    with pytest.raises(UserError, match="1 more were made by an earlier version"):
        find_runs(tmp_path, "abc")
