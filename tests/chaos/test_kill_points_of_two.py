"""Two processes that are killed at any point of an iteration go on, and end with every figure of two that were not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from forked import fork_run, same, scalars, state
from points import POINTS, TWO

pytestmark = [pytest.mark.chaos, pytest.mark.e2e]


@pytest.fixture(scope="module")
def whole_of_two(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    log = folder.parent / "log"
    assert fork_run([*small, *TWO, f"run_dir={folder}"], log, ranks=2) == [0, 0], log.read_text()
    return folder


@pytest.mark.parametrize("point", POINTS)
def test_two_ranks_that_are_killed_end_with_the_figures_of_two_that_were_not(
    point: str, small: list[str], whole_of_two: Path, tmp_path: Path
) -> None:
    arguments, log = [*small, *TWO, f"logs_dir={tmp_path}"], tmp_path / "log"
    killed = fork_run([*arguments, f"run_dir={tmp_path}/killed"], log, POINTS[point], ranks=2)
    assert -signal.SIGKILL in killed, log.read_text()
    rest = tmp_path / "rest"
    assert fork_run([*arguments, f"run_dir={rest}", "ckpt_path=last"], log, ranks=2) == [0, 0], log.read_text()
    assert scalars(rest) == scalars(whole_of_two)
    assert same(state(rest / "checkpoints/last.ckpt"), state(whole_of_two / "checkpoints/last.ckpt"))
