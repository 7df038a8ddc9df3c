"""Files that jobs leave while they run: damaged ones, or somebody else's, never end the command that follows them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sdar.compare.job import STATE_FOLDER
from sdar.compare.launching import Progress, last_line
from sdar.run.folder import STATE_FILE

RUNNING = {"state": "running", "run_dir": "run", "log": "output.log", "resumed": False, "started": 0.0}
DONE = {**RUNNING, "state": "done", "code": 0, "ended": 60.0}
WRONG = [
    *({**DONE, "state": what} for what in ("ended", None, ["done"], {}, 3)),
    *({**DONE, "code": what} for what in ("0", None, 1.5, 10**400, True)),
    *({**DONE, "ended": what} for what in ("now", None, -1, 1e300, [60.0])),
    *({**DONE, "log": what} for what in (3, None, "", "a\0b", ["output.log"])),
    *({**RUNNING, name: None} for name in RUNNING),
    *({**RUNNING, "run_dir": what} for what in (["run"], 3, "a\0b")),
    {**RUNNING, "started": "2026"},
    {},
    [],
    "running",
    None,
]


@pytest.fixture
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Of two jobs, of which the second is done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / STATE_FOLDER).mkdir()
    (tmp_path / "run").mkdir()
    put(tmp_path, 1, DONE)
    return Progress(tmp_path, ["a", "b"], 1)


def put(folder: Path, number: int, state: Any) -> None:
    (folder / STATE_FOLDER / f"{number}.json").write_text(json.dumps(state))


@pytest.mark.parametrize("state", WRONG, ids=lambda state: str(state)[:80])
def test_a_state_of_another_shape_says_nothing(
    progress: Progress, capsys: pytest.CaptureFixture[str], state: Any
) -> None:
    put(progress.folder, 0, state)
    progress.look()
    assert list(progress.states()) == [1]
    assert capsys.readouterr().out == "b: done after 1 min 00 s; 1 of 2 ended, about 1 min 00 s left\n"


@pytest.mark.parametrize(
    "told", [{"iteration": "1", "of": 2}, {"iteration": 1, "of": "2"}, {"of": 2}, {"iteration": -1, "of": 2}, [1, 2], 3]
)
def test_an_unknown_share_is_no_share(progress: Progress, told: Any) -> None:
    put(progress.folder, 0, RUNNING)
    Path("run", STATE_FILE).write_text(json.dumps(told))
    assert progress.estimate(progress.states()) == 0.0  # the mean of the runs that are done has passed long ago


def test_the_end_of_a_log_is_read_alone(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    with log.open("wb") as file:
        file.truncate(20_000_000_000)  # takes no space
        file.seek(0, os.SEEK_END)
        file.write(b"\nerror: \x1b[31mthe weights\xff are gone\n\n")
    assert last_line(log) == "error: \\x1b[31mthe weights\ufffd are gone"
    log.unlink()
    assert last_line(log) == ""
    os.mkfifo(log)
    assert last_line(log) == ""
