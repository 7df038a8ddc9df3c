"""Stopping a launcher: its runs end in their own time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sdar.compare import launcher

pytestmark = pytest.mark.e2e


def test_a_run_may_save_its_iteration_though_its_launcher_dies_at_once(tmp_path: Path) -> None:
    saves = "trap 'sleep 0.2; echo saved > saved; exit' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        ["sh", "-c", '(eval "$1") & wait', "sh", saves], cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    launcher.stop(process)
    process.stdout.close()
    assert (tmp_path / "saved").read_text() == "saved\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
