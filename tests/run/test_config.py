"""Promises of the configuration: what composes, and that every mistake is told in one sentence before any work."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sdar.config.ranges import Range
from sdar.config.targets import check_arguments, locate
from sdar.config.types import describe, fits
from sdar.run.rules.mirrors import MIRRORS
from sdar.run.rules.schema import AlgorithmSettings

from config_cases import WRONG_SETTINGS
from sdar.config.compose import compose_config, sweep
from sdar.config.sources import config_folder, groups
from sdar.errors import UserError
from sdar.run.folder import config_hash, find_last, git_revision, new_run_folder, read_config, write_run_folder
from sdar.run.validate import validate

CHOICES = [
    (group, option)
    for group, options in groups(config_folder()).items()
    for option in options
    if group != "experiment"  # the others have tests of their own
]


def settings_of(*overrides: str) -> dict[str, Any]:
    config = compose_config(list(overrides))
    if config.get("run_dir") is None:
        config["run_dir"] = "somewhere"
    return validate(config)


def needed_beside(group: str, option: str) -> list[str]:
    """Settings without which a choice cannot be: a model must have a name, a method without a teacher."""
    return {
        ("model", "hf"): ["model.name=some/model"],
        ("teacher", "none"): ["algorithm=grpo"],
        ("statistics", "release"): ["rollout=window"],
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
        assert settings["rollout"]["context"] == settings["collector"]["context"] == rollout
        assert settings["module"]["context"] == rollout


def test_a_sweep_is_every_combination() -> None:
    assert sweep(["seed=1,2", "algorithm=grpo,sdar", "threads=1"]) == [
        [f"seed={seed}", f"algorithm={method}", "threads=1"] for seed in (1, 2) for method in ("grpo", "sdar")
    ]


def test_every_method_file_states_every_coefficient() -> None:
    """The files are the table of methods: none may leave a cell to a default."""
    for name in groups(config_folder())["algorithm"]:
        table = settings_of(f"algorithm={name}")["algorithm"]
        assert set(table) == set(inspect.signature(AlgorithmSettings).parameters), name
        pieces = [table["objective"], table["advantage"], table["shaping"], table["supervision"]]
        nodes = [*pieces, table["objective"]["policy_length"]]
        for node in filter(None, nodes):
            known = set(inspect.signature(locate(node["_target_"], name)).parameters)
            assert set(node) - {"_target_"} == known, name


def test_only_allowed_packages_are_built() -> None:
    for target in ("os.system", "subprocess.run", "torch.load", "sdar_evil.thing", 3):
        with pytest.raises(UserError, match="only objects of"):
            locate(target, "here")


def test_signature_checks_see_through_nested_objects() -> None:
    node = {"_target_": "sdar.objective.objective.ObjectiveConfig", "clip_low": "x"}
    with pytest.raises(UserError, match=r"outer\.objective\.clip_low=x: allowed is a number"):
        check_arguments(_holder, {"objective": node}, "outer")


def _holder(objective: Any) -> Any:
    return objective


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        ("1", float, False),
        (None, int | None, True),
        ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False),
        ([1, "x"], list[int], False),
        ("x", list[str], False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ("p", Path, True),
        (2, Annotated[int, Range(at_least=2)], True),
        (1, Annotated[int, Range(at_least=2)], False),
        (None, Annotated[int | None, Range(at_least=2)], True),
        ({"a": 1}, dict[str, int], True),
        ({"a": "b"}, dict[str, int], False),
        ("text", Range, False),
    ],
)
def test_values_fit_annotations_as_a_reader_would_say(value: Any, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected
    assert describe(hint)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_setting_takes_a_number_that_is_not_finite(value: float) -> None:
    assert fits(value, float) is (abs(value) < float("inf"))


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_a_range_contains_its_bounds_unless_it_says_above_or_below(bound: float, value: float) -> None:
    assert Range(at_least=bound).contains(value) is (value >= bound)
    assert Range(above=bound).contains(value) is (value > bound)
    assert Range(at_most=bound).contains(bound)
    assert not Range(below=bound).contains(bound)


def test_the_hash_ignores_what_may_change_on_resuming_and_nothing_else() -> None:
    base = config_hash(settings_of())
    for harmless in ("trainer.max_epochs=99", "run_dir=elsewhere", "logs_dir=elsewhere", "threads=1", "name=x"):
        assert config_hash(settings_of(harmless)) == base
    for harmless in ("callbacks.curriculum.patience=9", "logger=none", "evaluation.panel_size=6"):
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
    assert find_last(tmp_path, config_hash(settings)).parts[-3] == "2026-01-01_01-00-00"
    assert find_last(tmp_path, config_hash(other)).parts[-3] == "2026-01-01_03-00-00"
    with pytest.raises(UserError, match="ckpt_path=last: of the 3 runs"):
        find_last(tmp_path, "0" * 16)


def test_a_run_folder_holds_what_is_needed_to_repeat_the_run(tmp_path: Path) -> None:
    import json
    from datetime import datetime

    when = datetime(2026, 1, 1)
    folder = new_run_folder(tmp_path, "run", when)
    settings = settings_of("seed=7")
    write_run_folder(folder, settings, started=when, command=["sdar-train", "seed=7"], resumed_from=None)
    assert read_config(folder) == settings
    record = json.loads((folder / "run.json").read_text())
    assert record["seed"] == 7
    assert record["command"] == ["sdar-train", "seed=7"]
    assert record["versions"]["torch"]
    assert record["git"] == git_revision()
    assert new_run_folder(tmp_path, "run", when) != folder


def test_every_setting_that_an_object_takes_from_elsewhere_is_checked_to_be_the_same() -> None:
    config = OmegaConf.load(config_folder() / "train.yaml")
    taken = {
        node: {
            name: text.removeprefix("${").removesuffix("}")
            for name, text in OmegaConf.to_container(config[node], resolve=False).items()
            if str(text).startswith("${")
        }
        for node in ("collector", "module", "datamodule")
    }
    assert taken == MIRRORS
