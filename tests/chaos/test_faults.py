"""Faults during a run have a typed outcome, in bounded time, told in one sentence; the run can be continued."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from faults import FAULTS, is_whole
from forked import fork_run, scalars, start, wait

from toys.waiting import held_port

pytestmark = [pytest.mark.chaos, pytest.mark.e2e]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_in_one_sentence_and_the_run_goes_on_when_it_is_continued(
    name: str, small: list[str], tmp_path: Path
) -> None:
    fault = FAULTS[name]
    arguments, log, folder = [*small, *fault.settings, f"logs_dir={tmp_path}"], tmp_path / "log", tmp_path / "run"
    if fault.before is not None:
        fault.before(folder)
    words = [*arguments, f"run_dir={folder}"]
    with held_port() as port:
        children = [start(words, log, fault.strike, rank, fault.ranks, port) for rank in range(fault.ranks)]
        judged = [child for child, code in zip(children, fault.codes, strict=True) if code is not None]
        codes = wait(judged, seconds=fault.seconds)
    for child in set(children) - set(judged):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said = log.read_text()
    assert codes == [code for code in fault.codes if code is not None], said
    assert "Traceback" not in said
    assert fault.told in said
    if fault.says:
        assert fault.says.format(*children) in said.strip().splitlines()[-1], said
    assert is_whole(folder)
    assert not [file for file in (folder / "checkpoints").iterdir() if file.suffix not in (".ckpt",)]
    if fault.after is not None:
        fault.after(folder)
    if fault.continued is None:
        return
    rest = tmp_path / "rest"
    again = fork_run([*arguments, f"run_dir={rest}", "ckpt_path=last"], tmp_path / "again", ranks=fault.ranks)
    said = (tmp_path / "again").read_text()
    assert again == [0] * fault.ranks, said
    assert fault.continued in said
    assert len(scalars(rest)["loss/total"]) == 3
