"""A run that is killed at any point of an iteration goes on, and ends with every figure of a run that was not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from forked import fork_run, same, scalars, state
from points import POINTS, RUNS

from toys.asked import on_request

pytestmark = [pytest.mark.chaos, pytest.mark.e2e]


@pytest.fixture(scope="module")
def whole(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs that were not killed."""
    folders = {name: tmp_path_factory.mktemp("whole") / "run" for name in RUNS}
    for name, folder in folders.items():
        log = folder.parent / "log"
        assert fork_run([*small, *RUNS[name], f"run_dir={folder}"], log) == [0], log.read_text()
    return folders


def pairs() -> list[object]:
    """Every run at every point; in turn where not all are asked for."""
    return [
        pytest.param(name, point, marks=() if (number - place) % len(RUNS) == 0 else on_request)
        for number, name in enumerate(RUNS)
        for place, point in enumerate(POINTS)
    ]


@pytest.mark.parametrize(("name", "point"), pairs())
def test_a_killed_run_ends_with_the_figures_of_one_that_was_not(
    name: str, point: str, small: list[str], whole: dict[str, Path], tmp_path: Path
) -> None:
    arguments, log = [*small, *RUNS[name], f"logs_dir={tmp_path}"], tmp_path / "log"
    assert fork_run([*arguments, f"run_dir={tmp_path}/killed"], log, POINTS[point]) == [-signal.SIGKILL], (
        log.read_text()
    )
    rest = tmp_path / "rest"
    assert fork_run([*arguments, f"run_dir={rest}", "ckpt_path=last"], log) == [0], log.read_text()
    assert scalars(rest) == scalars(whole[name])
    assert same(state(rest / "checkpoints/last.ckpt"), state(whole[name] / "checkpoints/last.ckpt"))
