"""What a command line of ``sdar train`` is refused for before it writes anything, and what a sweep shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sdar.commands import train
from sdar.processes import wait_passively


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a folder around it in which nothing may be written."""
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("name=..", "name must be a folder's name below logs_dir"),
        ("name=../../out", "name must be a folder's name below logs_dir"),
        ("name=" + "n" * 300, "name must be a folder's name below logs_dir"),
        ("logger.tensorboard.name=../../out", "logger.tensorboard.name must be a folder's name below save_dir"),
        ("logger.tensorboard.version=/out", "logger.tensorboard.version must be a folder's name below save_dir"),
        ("run_dir=", "run_dir must be a path, got ''"),
        ("logs_dir=''", "logs_dir must be a path, got ''"),
        ("logs_dir=" + "n" * 300, "logs_dir must be a path whose parts have at most 255 bytes"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2, but this process was started alone"),
    ],
)
def test_nothing_is_written_for_a_place_that_is_refused(
    setting: str, told: str, inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert train.main(["experiment=smoke", "callbacks.episodes.directory=null", setting]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert len(shown.err) < 510
    assert [path.relative_to(inside) for path in inside.rglob("*")] == [Path("inside")]


def test_a_sweep_is_shown_without_being_started(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--multirun", "--cfg", "job", "experiment=smoke", "seed=1,2"]) == 0
    shown = capsys.readouterr().out
    assert [config["seed"] for config in yaml.safe_load_all(shown)] == [1, 2]
    assert "# experiment=smoke seed=2" in shown
    assert not list((inside / "inside").iterdir())


def test_waiting_threads_sleep_unless_the_environment_says_otherwise() -> None:
    environ: dict[str, str] = {}
    wait_passively(environ)
    assert environ == {"OMP_WAIT_POLICY": "PASSIVE"}
    for said in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "1"}):
        environ = dict(said)
        wait_passively(environ)
        assert environ == said
