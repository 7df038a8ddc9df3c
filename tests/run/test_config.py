"""Promises of the configuration: what composes, and that every mistake is told in one sentence before any work."""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from config_cases import NO_OVERRIDES, UNREADABLE, WRONG_SETTINGS, WRONG_VALUES
from sdar.config.compose import compose_config, parse, sweep
from sdar.config.signatures import find, signature
from sdar.config.sources import config_folder, groups
from sdar.config.targets import defined
from sdar.errors import UserError
from sdar.run.folder import find_runs, git_revision, new_run_folder, read_config, write_run_folder
from sdar.run.identity import config_hash
from sdar.run.rules.names import check_name
from sdar.run.rules.renamed import RENAMED
from sdar.run.validate import compose, validate

TOGETHER = ("callbacks", "environment", "evaluation", "logger", "model", "retrieval", "rollout", "trainer")
"""Groups whose options have nothing to do with one another: they are composed one of each at a time."""


def choices() -> list[tuple[tuple[str, str], ...]]:
    """Groups and options to compose together, so that each is composed once."""
    known = {group: [(group, option) for option in options] for group, options in groups(config_folder()).items()}
    rows = itertools.zip_longest(*(known.pop(group) for group in TOGETHER))
    del known["experiment"]  # those have tests of their own
    return [*(tuple(filter(None, row)) for row in rows), *((choice,) for each in known.values() for choice in each)]


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
        ("divergence", "gated_expected"): ["teacher.source=current"],
        ("divergence", "forward_kl"): ["teacher.source=ema"],
        ("divergence", "jsd"): ["teacher.keep_hidden=true"],
        ("trainer", "gpu"): ["trainer.accelerator=auto"],
        ("search_engine", "dense"): ["environment=search_qa", "environment.search_engine.corpus=corpus.jsonl"],
        ("search_engine", "http"): ["environment=search_qa"],
        ("search_engine", "bm25"): ["environment=search_qa", "environment.search_engine.corpus=corpus.jsonl"],
        ("environment", "gymnasium"): ["environment.id=FrozenLake-v1", "algorithm=grpo", "teacher=none"],
        ("environment", "verifiers"): ["environment.id=wordle", "algorithm=grpo", "teacher=none"],
        ("environment", "trl"): ["environment.factory=mypkg.Wordle", "algorithm=grpo", "teacher=none"],
        ("environment", "openenv"): ["environment.url=http://127.0.0.1:8000", "algorithm=grpo", "teacher=none"],
    }.get((group, option), [])


@pytest.mark.parametrize("chosen", choices(), ids=lambda row: " ".join(f"{group}={option}" for group, option in row))
def test_smoke_composes_with_every_option_of_every_group(chosen: tuple[tuple[str, str], ...]) -> None:
    overrides = [word for group, option in chosen for word in (f"{group}={option}", *needed_beside(group, option))]
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


def is_a_sentence(message: str) -> bool:
    return len(message) < 500 and message.isprintable()


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    return settings_of("experiment=smoke")


@pytest.mark.parametrize("path", WRONG_VALUES)
def test_no_setting_takes_a_value_that_means_nothing(path: str, right: dict[str, Any]) -> None:
    for value in WRONG_VALUES[path]:
        settings = copy.deepcopy(right)
        *groups_above, name = path.split(".")
        functools.reduce(operator.getitem, groups_above, settings)[name] = value
        with pytest.raises(UserError) as caught:
            validate(OmegaConf.create(settings))
        assert is_a_sentence(str(caught.value)), value
        assert name in str(caught.value) or path.split(".")[0] in str(caught.value)


@pytest.mark.parametrize("text", UNREADABLE)
def test_an_override_that_cannot_be_read_is_told_with_its_letter_and_the_words_that_work(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([text])
    told, _, line = str(caught.value).partition(", as in ")
    assert f"at {UNREADABLE[text]!r}" in told
    (word,) = shlex.split(line)
    name, _, value = text.partition("=")
    (override,) = parse([word])
    assert (override.key_or_group, override.value()) == (name.lstrip("+"), value)


@pytest.mark.parametrize("number", range(len(NO_OVERRIDES)))
def test_words_that_are_no_override_are_told_in_one_sentence(number: int) -> None:
    with pytest.raises(UserError) as caught:
        parse([NO_OVERRIDES[number]])
    assert is_a_sentence(str(caught.value))
    assert "cannot be read" in str(caught.value)


PATHS = [
    "/home/m\u00fcller/run/epoch=6.ckpt",
    "\u65e5\u672c/a b",
    "a(1)[2]{3}",
    'it\'s "so"',
    "a&b#c;d!",
    "a,b",
    "5",
    "true",
    "a\\b",
]


def test_a_path_is_what_stands_behind_the_first_equals_sign() -> None:
    settings = ("ckpt_path", "logs_dir", "run_dir", "skills", "environment.data_dir", "model.path", "model.name")
    settings += ("callbacks.episodes.directory", "logger.tensorboard.save_dir", "environment.search_engine.corpus")
    for number, path in enumerate(PATHS):
        (override,) = parse([f"{settings[number % len(settings)]}={path}"], several=False)
        assert override.value() == path


def test_paths_survive_composition_and_tildes_are_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = dict(
        zip(("run_dir", "environment.data_dir", "logger.tensorboard.save_dir", "model.path"), PATHS, strict=False)
    )
    overrides = [f"{name}={path}" for name, path in given.items()]
    config = compose_config([*overrides, "logs_dir=~/my logs", "ckpt_path=null", "skills=${domain}"])
    assert {name: OmegaConf.select(config, name) for name in given} == given
    assert config["logs_dir"] == str(tmp_path / "my logs")
    assert (config["ckpt_path"], config["skills"]) == (None, "alfworld")


def test_paths_may_be_swept_with_commas() -> None:
    assert sweep(["skills=a,b"]) == [["skills=a"], ["skills=b"]]
    with_null = sweep(["environment.data_dir=null,/some where,NULL"])
    assert [combination[0].partition("=")[2] for combination in with_null] == ["null", '"/some where"', "null"]
    found = sweep(["ckpt_path=/m\u00fcller/epoch=1.ckpt,/b (2)/x", "seed=1"])
    values = [parse(overrides, several=False)[0].value() for overrides in found]
    assert values == ["/m\u00fcller/epoch=1.ckpt", "/b (2)/x"]


def test_a_sweep_has_an_end() -> None:
    with pytest.raises(UserError, match="at most 10000 runs"):
        sweep(["seed=range(1000000000000)"])


@pytest.mark.parametrize("name", ["..", "/abs", "a/../../b", "", "a/..", "../x", "n" * 1000])
def test_no_name_leads_out_of_the_folder_of_logs(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name must be a folder's name below logs_dir"):
        new_run_folder(tmp_path, name, datetime(2026, 1, 1))
    check_name("grpo/m\u00fcller = 3")


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
        table = settings_of("experiment=smoke", f"algorithm={name}")["algorithm"]
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


def test_a_run_that_does_not_know_a_newer_setting_is_one_that_leaves_it_alone() -> None:
    settings = settings_of()
    older = {**settings, "rollout": {k: v for k, v in settings["rollout"].items() if k != "overlap"}}
    assert config_hash(older) == config_hash(settings)
    assert config_hash(settings_of("rollout.overlap=true")) != config_hash(older)


def test_a_run_may_go_on_with_a_vllm_server_that_has_moved() -> None:
    served = ("rollout.backend=vllm", "rollout.vllm.url=http://127.0.0.1:8000")
    base = config_hash(settings_of(*served))
    for harmless in ("url=http://elsewhere:9000", "timeout_s=5", "weights_folder=/elsewhere"):
        assert config_hash(settings_of(*served, f"rollout.vllm.{harmless}")) == base
    assert config_hash(settings_of(*served, "rollout.vllm.importance_cap=3")) != base
    assert config_hash(settings_of(served[0])) != base


def test_a_run_may_go_on_with_a_search_server_that_has_moved() -> None:
    searching = ("environment=search_qa", "search_engine=http")
    base = config_hash(settings_of(*searching))
    for harmless in ("urls=[http://elsewhere/retrieve]", "timeout_s=5", "attempts=1", "patience_s=9"):
        assert config_hash(settings_of(*searching, f"environment.search_engine.{harmless}")) == base
    assert config_hash(settings_of(*searching, "environment.top_k=5")) != base
    assert config_hash(settings_of("environment=search_qa")) != base


def test_last_is_the_newest_run_with_a_checkpoint_and_the_same_settings(tmp_path: Path) -> None:
    from datetime import timedelta

    start = datetime(2026, 1, 1)
    settings, other = settings_of(), settings_of("seed=2")
    for number, (these, finished) in enumerate([(settings, True), (settings, True), (settings, False), (other, True)]):
        when = start + timedelta(hours=number)
        folder = new_run_folder(tmp_path, "run", when)
        write_run_folder(folder, these, started=when, command=["x"], resumed_from=None)
        if finished:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "last.ckpt").touch()
    for these, hours in ((settings, (2, 1, 0)), (other, (3,))):
        names = [run.name for run in find_runs(tmp_path, config_hash(these))]
        assert names == [f"2026-01-01_0{hour}-00-00" for hour in hours]
    with pytest.raises(UserError, match="ckpt_path=last: of the 3 runs"):
        find_runs(tmp_path, "0" * 16)


def test_a_run_folder_holds_what_is_needed_to_repeat_the_run(tmp_path: Path) -> None:
    import json

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


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "gate.beta=7.5", "+trainer.detect_anomaly=true", "name='a b'"],
        [
            "algorithm=grpo",
            "optimizer.betas=[0.8,0.9]",
            "environment.num_tasks=[6,6,6]",
            "optimizer.learning_rate=1e-5",
        ],
        ["model.lora={rank: 4, alpha: 8}", "experiment=smoke", "skills=${domain}", "logs_dir=${oc.env:HOME}"],
        ["callbacks.mine={_target_: sdar.callbacks.progress.ProgressLine}", "trainer.precision=bf16-mixed", "a.b.c=1"],
    ],
)
def test_settings_are_what_hydra_makes_of_them(overrides: list[str], tmp_path: Path) -> None:
    """A folder of one's own, even an empty one, leaves everything to Hydra."""
    ours, theirs = (compose_config(overrides, config_dir=folder) for folder in (None, tmp_path))
    assert OmegaConf.to_container(ours, resolve=False) == OmegaConf.to_container(theirs, resolve=False)
    assert compose_config(["seed=4"]).seed == 4
    assert compose_config([]).seed == 1
