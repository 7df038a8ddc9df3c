"""Promises of the command line: exit codes, one sentence, no traceback, and a whole tiny run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from sdar.commands.train import main
from sdar.config.sources import config_folder
from sdar.run.folder import RUN_FILE, occupied
from toys.models import tiny_random_model, toy_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is written outside the test's folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose text is bytes: it plays nonsense, but it plays."""
    return save_model(tmp_path_factory.mktemp("tiny"))


def save_model(folder: Path, *, template: bool = True) -> Path:
    tokenizer = toy_tokenizer() if template else toy_tokenizer(None)
    tiny_random_model(vocab_size=len(tokenizer), hidden_size=16, num_layers=1, context_tokens=2048).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command line is refused with; nothing may have been written."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in shown.err
    assert not Path("logs").exists()
    return lines[0]


SMALL = ("experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "rollout.group_size=2")


@pytest.mark.parametrize(
    "name",
    [
        "run_dir",
        "logs_dir",
        "logger.tensorboard.save_dir",
        "callbacks.checkpoint.directory",
        "callbacks.skills.directory",
    ],
)
@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], name: str, path: str
) -> None:
    Path("file").touch()
    message = refused(capsys, *SMALL, f"{name}={path}")
    assert message.startswith(f"error: {name}={path}: ")
    assert "not a directory" in message


def test_more_threads_than_cores_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "threads=100000, but this process may use only" in refused(capsys, *SMALL, "threads=100000")


def test_a_run_folder_given_for_its_checkpoint_is_told_which_file_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Path("old/checkpoints/last.ckpt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert f"it must be the file {checkpoint}" in refused(capsys, *SMALL, "ckpt_path=old")


def test_a_configuration_that_is_shown_is_said_to_be_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "gate.beta=-5"]) == 0
    shown = capsys.readouterr()
    assert "beta: -5" in shown.out
    assert shown.err.startswith("a run would be refused: gate.beta must be a number >= 0, got -5")
    assert main(["--cfg", "job"]) == 0
    assert capsys.readouterr().err == ""


def test_a_folder_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    message = refused(capsys, *SMALL, f"model.path={tiny}", "environment.data_dir=no/such/folder")
    assert "no/such/folder" in message
    assert "data_dir" in message


def test_a_folder_without_games_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path) -> None:
    for split in ("train", "valid_seen", "valid_unseen"):
        (tmp_path / "empty" / "json_2.1.1" / split).mkdir(parents=True)
    message = refused(capsys, *SMALL, f"model.path={tiny}", f"environment.data_dir={tmp_path / 'empty'}")
    assert "data_dir" in message


def test_a_panel_larger_than_the_tasks_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    message = refused(capsys, *SMALL, f"model.path={tiny}", "evaluation.panel_size=7")
    assert "7" in message
    assert "6" in message


def test_an_unknown_split_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    message = refused(capsys, *SMALL, f"model.path={tiny}", "evaluation.split=test")
    assert "valid_unseen" in message


def test_a_panel_of_training_tasks_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    message = refused(capsys, *SMALL, f"model.path={tiny}", "evaluation.split=train")
    assert "training" in message


def test_a_model_without_chat_template_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = save_model(tmp_path / "speechless", template=False)
    message = refused(capsys, *SMALL, "model=hf", f"model.name={folder}")
    assert "template" in message


def test_a_model_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "model.path" in refused(capsys, *SMALL, "model.path=no/such/model")
    assert "model.name" in refused(capsys, *SMALL, "model=hf", "model.name=no/such/model")


def test_more_tasks_than_there_are_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    message = refused(capsys, *SMALL, f"model.path={tiny}", "rollout.tasks_per_iteration=13")
    assert "12" in message


def test_a_file_that_is_no_checkpoint_is_refused(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "some.ckpt").write_text("nothing")
    message = refused(capsys, *SMALL, f"model.path={tiny}", f"ckpt_path={tmp_path / 'some.ckpt'}")
    assert "some.ckpt" in message


def test_a_folder_that_another_run_has_is_left_to_it(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    """Before it has done any work."""
    folder = tmp_path / "run"
    with occupied(folder) as ours:
        assert ours
        message = refused(capsys, *SMALL, f"model.path={tiny}", f"run_dir={folder}")
        assert "is taken by another run" in message
        assert not (folder / RUN_FILE).exists()


def test_last_without_a_run_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    assert "ckpt_path=last" in refused(capsys, *SMALL, f"model.path={tiny}", "ckpt_path=last")


def test_a_sweep_with_one_mistake_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gate.beta must be a number >= 0, got -1" in refused(capsys, "--multirun", "gate.beta=1,-1")


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--nonsense" in refused(capsys, "--nonsense")


def test_help_names_every_group_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("algorithm", "grpo", "sdar", "environment", "alfworld", "experiment", "smoke", str(config_folder())):
        assert name in shown


def test_the_composed_configuration_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "gate.beta=4"]) == 0
    assert "beta: 4" in capsys.readouterr().out


def test_a_value_that_cannot_be_shown_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--cfg", "job", "--resolve", "experiment=paper/alfworld_qwen2_5_3b")
    assert "ALFWORLD_DATA" in refused(capsys, *arguments)


@pytest.mark.e2e
def test_the_shell_sees_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "+trainer.max_epoch=3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "trainer.max_epochs" in done.stderr
    assert list(tmp_path.iterdir()) == []


def curve(folder: Path, *, clock: bool = False) -> dict[str, dict[int, float]]:
    """All figures of a run, those that depend on the clock if they are asked for: tag -> step -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
        if clock or not tag.startswith(("time/", "throughput/"))
    }


def timeless(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.e2e
@pytest.mark.parametrize("rollout", ["append", "window"])
def test_a_run_a_resumed_run_and_an_evaluation(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, rollout: str
) -> None:
    """Same seed, same curve: a run that is stopped after its first iteration and continued has the whole run's."""
    base = [*SMALL, f"model.path={tiny}", f"rollout={rollout}"]
    assert main([*base, "run_dir=whole"]) == 0
    shown = capsys.readouterr().out
    for part in ("random admissible agent", "expert", "warm start", "trained, with skills", "tensorboard --logdir"):
        assert part in shown
    whole = curve(tmp_path / "whole")
    assert sorted(whole["loss/total"]) == [0, 1]
    assert sorted(whole["val/success_rate"]) == [0, 1, 2]
    assert all(math.isfinite(value) for points in whole.values() for value in points.values())

    for name in ("config.yaml", "run.json", "results.json", "episodes.jsonl", "run.log", "checkpoints/last.ckpt"):
        assert (tmp_path / "whole" / name).is_file(), name
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert [row["n"] for row in results["results"]] == [6] * 6

    assert main([*base, "run_dir=logs/first", "trainer.max_epochs=1"]) == 0
    assert main([*base, "run_dir=logs/second", "ckpt_path=last"]) == 0
    assert "continuing from logs/first/checkpoints/last.ckpt" in capsys.readouterr().out
    resumed = curve(tmp_path / "logs" / "second")
    assert {tag: points[1] for tag, points in whole.items() if 1 in points and "val" not in tag} == {
        tag: points[1] for tag, points in resumed.items() if 1 in points and "val" not in tag
    }
    again = json.loads((tmp_path / "logs" / "second" / "results.json").read_text())
    assert again["results"] == results["results"]
    # the record of the whole course of training, its earlier part included
    assert [row["iterations"] for row in results["evaluations"]] == [0, 0, 1, 1, 2, 2]
    assert timeless(again["evaluations"]) == timeless(results["evaluations"])
    assert {name: results["training"][name] for name in ("iterations", "tasks")} == {"iterations": 2, "tasks": 12}
    assert again["training"]["content_hash"] == results["training"]["content_hash"]

    last = "whole/checkpoints/last.ckpt"
    # another teacher is refused before anything is played
    capsys.readouterr()
    for other in ("retrieval=ucb", "teacher.source=ema", "teacher=skills_and_demonstration"):
        assert main([*base, "run_dir=other", "trainer.max_epochs=3", f"ckpt_path={last}", other]) == 2
        shown = capsys.readouterr()
        assert "val:" not in shown.out
        assert len(shown.err.strip().splitlines()) == 1
        assert other.split("=")[0].split("_")[0] in shown.err

    # nothing is left to train
    assert main([*base, "run_dir=third", f"ckpt_path={last}"]) == 2
    assert "trainer.max_epochs must be > 2" in capsys.readouterr().err
    # but it can be evaluated, to the same figures
    assert main([*base, "run_dir=judged", "train=false", f"ckpt_path={last}"]) == 0
    judged = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert judged["results"][-1]["tasks"] == results["results"][-1]["tasks"]
    lines = [json.loads(line) for line in (tmp_path / "judged" / "episodes.jsonl").read_text().splitlines()]
    played = {name: [line for line in lines if line["evaluation"] == name] for name in ("checkpoint", "warm start")}
    assert [len(episodes) for episodes in played.values()] == [judged["results"][-1]["n"]] * 2
    # and a folder that holds a run is not written over
    assert main([*base, "run_dir=whole"]) == 2
    assert "run_dir=whole" in capsys.readouterr().err
