"""Promises of the front door: every command, its help, old ways to call it, and what of Hydra works here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sdar
from sdar.commands import export, play, train
from sdar.commands.front import COMMANDS, main
from sdar.compare import pool
from sdar.config.command_line import parse_command_line
from sdar.errors import UserError, command
from sdar.run.validate import compose

LONG = "n" * 300
ALIASES = ("app", "play", "export", "skills", "compare", "commands.train", "config.method_table")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = 0
    try:
        code = main([name, "--help"])
    except SystemExit as ended:  # argparse
        code = int(ended.code or 0)
    assert code == 0
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["check", "play"])
@pytest.mark.parametrize(
    ("override", "said"),
    {
        "environment=gymnasium": "environment.id is not set: give it as environment.id=VALUE",
        "environment.max_turns=${oc.env:SDAR_NOT_SET}": "VALUE, or SDAR_NOT_SET=VALUE in the shell",
        "environment.max_turns=${no_such}": "environment.max_turns: the value cannot be resolved",
    }.items(),
)
def test_a_setting_without_a_value_is_named(
    name: str, override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, override]) == 2
    assert said in capsys.readouterr().err


def test_the_front_door_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main([]) == 2
    assert main(["trian"]) == 2
    assert "'trian'" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sdar {sdar.__version__}\n"


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", [["-m", "sdar"], *(["-m", f"sdar.{name}"] for name in ALIASES[:5])])
def test_modules_that_were_commands_still_are(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments, "--help"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_a_command_ends_with_a_sentence_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def wrong(arguments: object) -> int:
        raise UserError("seed must be a whole number, got x")

    @command
    def stopped(arguments: object) -> int:
        raise KeyboardInterrupt

    @command
    def broken(arguments: object) -> int:
        raise RuntimeError("a defect of ours")

    assert wrong([]) == 2
    assert capsys.readouterr().err == "error: seed must be a whole number, got x\n"
    assert stopped([]) == 130
    with pytest.raises(RuntimeError):
        broken([])


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (play.main, ["--policy", LONG]),
        (play.main, ["--policy", f"{LONG}/checkpoints/last.ckpt"]),
        (play.main, ["--config-dir", LONG]),
        (export.main, [f"ckpt_path={LONG}", "out=x"]),
        (pool.main, [LONG]),
    ],
    ids=["a policy", "a checkpoint", "a folder of configuration", "a checkpoint to export", "a comparison"],
)
def test_a_name_that_no_file_can_have_is_told_in_one_sentence(
    main: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert len(told) < 510


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["hydra.run.dir=x"], "run_dir=FOLDER"),
        (["hydra.sweep.dir=x"], "logs_dir=FOLDER"),
        (["hydra.searchpath=[file://x]"], "--config-dir FOLDER"),
        (["hydra/launcher=joblib"], "--multirun"),
        (["hydra.launcher.n_jobs=2"], "--multirun"),
        (["hydra/job_logging=none"], "run.log"),
        (["hydra.verbose=true"], "run.log"),
        (["--config-path", "x"], "--config-dir FOLDER"),
        (["-cp=x"], "--config-dir FOLDER"),
        (["--info", "all"], "--cfg job"),
        (["--package", "gate"], "--cfg job"),
        (["--run"], "the default"),
        (["--multirun", "hydra/sweeper=other", "seed=1,2"], "seed=1,2,3"),
        (["--config-dir", "no/such/folder"], "no/such/folder"),
        (["--config-dir", LONG], "--config-dir must be a folder"),
        (["--config-name", "nothing"], "nothing"),
        (["--config-name", LONG], "--config-name must be the name of a file"),
        (["--config-name", ""], "--config-name must be the name of a file"),
    ],
)
def test_what_of_hydra_does_not_work_here_is_told_with_what_does(
    arguments: list[str],
    instead: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(arguments) == 2
    told = capsys.readouterr().err
    assert instead in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_of_ones_own_are_found_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "steep.yaml").write_text("_target_: sdar.objective.gate.GapGate\nbeta: 50.0\nthreshold: 0.5\n")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 77\n")
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nname: of_my_own\n")
    found = compose(["gate=steep", "experiment=mine"], config_dir=tmp_path)
    assert found.method.objective.gate.beta == 50  # type: ignore[attr-defined]
    assert found.seed == 77
    assert compose([], config_dir=tmp_path, config_name="mine").config["name"] == "of_my_own"
    with pytest.raises(UserError, match="gate=stepe: there is no such gate; did you mean steep"):
        compose(["gate=stepe"], config_dir=tmp_path)
    with pytest.raises(UserError, match="gate=steep"):
        compose(["gate=steep"])


def test_options_are_understood_in_their_short_forms() -> None:
    line = parse_command_line(["-cd", "folder", "-cn", "mine.yaml", "-m", "seed=1,2"])
    assert (line.config_dir, line.config_name, line.multirun, line.overrides) == ("folder", "mine", True, ("seed=1,2",))


SMALL = (
    *("experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "trainer.max_epochs=1"),
    *("evaluation.panel_size=2", "evaluation.baselines=false", "threads=1"),
)


@pytest.mark.e2e
def test_a_sweep_goes_through_hydras_launchers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--multirun`` and ``sdar compare`` share one mechanism: states, logs, progress."""
    monkeypatch.chdir(tmp_path)
    sweep = ["--multirun", *SMALL, "seed=1,2", "hydra/launcher=basic"]
    sweep += ["run_dir=runs/seed${seed}"]
    assert train.main(sweep) == 0
    shown = capsys.readouterr().out
    assert "2 runs to make, 1 at a time" in shown
    assert shown.count("done after") == 2
    runs = sorted(Path("runs").iterdir())
    assert [json.loads((run / "run.json").read_text())["seed"] for run in runs] == [1, 2]
    assert all(json.loads((run / "state.json").read_text()) == {"iteration": 1, "of": 1} for run in runs)
    assert all((run / "output.log").is_file() for run in runs)


@pytest.mark.e2e
def test_a_sweep_says_which_run_failed_and_does_not_end_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--multirun", *SMALL, "evaluation.split=valid_unseen,nowhere"]) == 2
    assert "evaluation.split" in capsys.readouterr().out.split("FAILED with exit code 2")[1]


def test_the_runs_of_a_sweep_have_folders_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--multirun", *SMALL, "run_dir=same", "seed=1,2"]) == 2
    assert "run_dir must be another folder for every run of a sweep" in capsys.readouterr().err


@pytest.mark.e2e
def test_the_python_front_imports_what_is_asked_for_when_it_is_asked_for() -> None:
    code = (
        "import sys, sdar\n"
        "assert not {'torch', 'lightning', 'hydra'} & set(sys.modules)\n"
        "assert sdar.__version__ and set(sdar.__all__) <= set(dir(sdar))\n"
        "assert sdar.make('search_qa', max_turns=2).max_turns == 2\n"
        "assert 'torch' not in sys.modules\n"
        "assert all(callable(getattr(sdar, name)) for name in sdar.__all__ if name != '__version__')\n"
        "try:\n    sdar.nothing\n"
        "except AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    sys.exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_environment_is_made_by_its_name() -> None:
    assert sdar.make("webshop", max_turns=3).max_turns == 3
    with pytest.raises(UserError, match="alfworld, webshop, search_qa, arithmetic"):
        sdar.make("moon")
    with pytest.raises(UserError, match="max_turns must be a whole number >= 1, got 0"):
        sdar.make("alfworld", max_turns=0)


def test_an_environment_is_checked_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "environment=search_qa"]) == 0
    assert "search_qa keeps to the protocol: " in capsys.readouterr().out
    assert main(["check", "seed=3"]) == 2
    assert "seed=3: only settings of environment, search_engine" in capsys.readouterr().err
