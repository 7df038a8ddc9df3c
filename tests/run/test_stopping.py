"""Whole runs that are asked to stop, or lose a process or their reader: one sentence, the right code, bounded time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from chaos.forked import start_program
from toys.waiting import held_port, until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ALONE = (
    *("experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "evaluation.panel_size=2"),
    *("evaluation.every_n_iterations=500", "evaluation.baselines=false", "threads=1", "trainer.max_epochs=500"),
)
TWO = (*ALONE, "trainer=ddp", "trainer.accelerator=cpu", "rollout.tasks_per_iteration=2")
SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
}


LONGEST_S = 300
"""Bounds all that a run is waited for, on a machine that is busy, too."""


class Run:
    """A run in a process group of its own, whose output is read while it goes on."""

    def __init__(self, folder: Path, name: str, overrides: Sequence[str], environ: Mapping[str, str]) -> None:
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        for file in (self.out, self.err):
            file.touch()
        self.pid = start_program(overrides, folder, environ, self.out, self.err)
        self.ended: int | None = None

    def wait_for(self, text: str) -> None:
        self.until(lambda: text in self.out.read_text())

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + LONGEST_S
        while not true():
            assert self.poll() is None, self.out.read_text()[-2000:] + self.err.read_text()[-4000:]
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.05)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None: it goes on."""
        if self.ended is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.ended = os.waitstatus_to_exitcode(status) if done else None
        return self.ended

    def code(self) -> int:
        end = time.monotonic() + LONGEST_S
        while self.poll() is None:
            assert time.monotonic() < end, "the run does not end"
            time.sleep(0.02)
        assert self.ended is not None
        return self.ended

    def sentence(self) -> str:
        """The one line on standard error, warnings aside."""
        lines = self.lines()
        assert len(lines) == 1, self.err.read_text()
        return lines[0]

    def lines(self) -> list[str]:
        return [line for line in self.err.read_text().splitlines() if not line.startswith("WARNING: ")]

    def other_rank(self) -> int:
        """The process that the trainer has started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return next(int(pid) for pid in children if "train.py" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def starting(*overrides: str, name: str = "run", **environ: str) -> Run:
        runs.append(Run(tmp_path, name, overrides, environ))
        return runs[-1]

    yield starting
    for run in runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.code()


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as held:
        yield held


def only_run(folder: Path) -> Path:
    (found,) = (folder / "logs" / "smoke").iterdir()
    return found


def test_sigterm_stops_a_run_between_turns_and_slurm_starts_it_again_where_it_was(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    """A job that is requeued has the same command line: the first start has nothing to continue from."""
    run = start(*ALONE, "ckpt_path=last_or_new", **SLURM)
    run.wait_for("iteration   2/500")
    os.kill(run.pid, signal.SIGTERM)
    assert run.code() == 143
    sentence = run.sentence()
    assert sentence.startswith("stopped by SIGTERM after iteration ")
    done = int(sentence.split()[5])
    assert f"{done} of 500; continue with: python " in sentence
    assert sentence.endswith(" trainer.max_epochs=500 ckpt_path=last")
    state = json.loads((only_run(tmp_path) / "state.json").read_text())
    assert state == {"iteration": done, "of": 500, "stopped": "SIGTERM"}
    assert "stopped by SIGTERM" in (only_run(tmp_path) / "run.log").read_text()

    again = (*ALONE, "ckpt_path=last_or_new", f"trainer.max_epochs={done + 1}")
    run = start(*again, **SLURM)
    assert run.code() == 0
    assert f"iteration {done + 1}/{done + 1}" in run.out.read_text()

    folders = set((tmp_path / "logs" / "smoke").iterdir())
    run = start(*again, **SLURM)
    assert run.code() == 0
    assert f"which has ended after {done + 1} of {done + 1} iterations" in run.err.read_text()
    assert set((tmp_path / "logs" / "smoke").iterdir()) == folders


def test_ctrl_c_before_the_first_iteration_ends_at_once_and_leaves_no_lock(start: Callable[..., Run]) -> None:
    run = start(*ALONE, "run_dir=mine")
    run.wait_for("panel: ")
    os.killpg(run.pid, signal.SIGINT)
    assert run.code() == 130
    assert run.sentence().startswith("stopped by SIGINT before the first iteration was finished; start again with: ")
    assert "run_dir" not in run.sentence()


def test_two_ranks_stop_together_when_one_of_them_is_asked(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(*TWO)
    run.wait_for("iteration   1/500")
    os.kill(run.other_rank(), signal.SIGTERM)
    assert run.code() == 143
    sentence = run.sentence()
    assert sentence.startswith("stopped by SIGTERM after iteration ")
    assert sentence.endswith("ckpt_path=last")
    assert list((only_run(tmp_path) / "checkpoints").glob("last.ckpt"))
    assert not (only_run(tmp_path) / ".ranks").exists()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_ranks_play_the_table_of_a_run_that_has_nothing_left_to_learn(
    strategy: str, start: Callable[..., Run], tmp_path: Path
) -> None:
    """As after a stop between the last iteration and its panel; under fsdp2 each rank has a part of the weights."""
    settings = (*TWO, f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1")
    assert start(*settings).code() == 0
    first = only_run(tmp_path)
    (first / "results.json").unlink()
    assert start(*settings, "evaluation.panel_size=4", "ckpt_path=last").code() == 0
    second = next(folder for folder in (tmp_path / "logs" / "smoke").iterdir() if folder != first)
    results = json.loads((second / "results.json").read_text())["results"]
    assert {row["name"]: row["n"] for row in results if row["name"].startswith("trained")} == {
        "trained": 4,
        "trained, with skills": 4,
    }


def test_a_process_that_is_killed_is_named_by_the_others(start: Callable[..., Run]) -> None:
    run = start(*TWO)
    run.wait_for("iteration   2/500")
    other = run.other_rank()
    os.kill(other, signal.SIGKILL)
    assert run.code() == 1
    sentence = run.sentence()
    assert sentence.startswith(f"error: rank 1 (process {other} on ")
    assert ") was killed; the run ended after iteration " in sentence
    assert sentence.endswith("ckpt_path=last")


def test_all_processes_of_a_job_that_is_told_to_end_do_so_with_the_signals_code(
    start: Callable[..., Run], tmp_path: Path, port: int
) -> None:
    """As Slurm starts and signals them."""
    slurm = SLURM | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "localhost"}
    slurm |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first, second = (
        start(*TWO, name=f"rank{rank}", **slurm | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}) for rank in "01"
    )
    first.wait_for("iteration   1/500")
    for run in (first, second):
        os.kill(run.pid, signal.SIGTERM)
    assert [run.code() for run in (first, second)] == [143, 143]
    assert "continue with: srun ... python " in first.sentence()
    assert second.lines() == []
    assert list((only_run(tmp_path) / "checkpoints").glob("last.ckpt"))


def test_a_second_signal_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    program = (
        "import time; from sdar.run.signals import StopSignals\n"
        "with StopSignals().held() as signals:\n"
        "    signals.patient, signals.farewell = True, lambda number: f'continue after {number}'\n"
        "    print('ready', flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(2):  # one after the other at once is one signal: `timeout` sends two
            process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        until(lambda: ended_by(process, signal.SIGINT))
        assert process.communicate()[1] == "continue after 2\n"
    assert process.returncode == 130


def ended_by(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Send a signal. One that comes while a busy machine has yet to see those before counts as the same as they do."""
    process.send_signal(number)
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_a_run_outlives_its_reader_and_letters_without_a_code(start: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "früh").mkdir()
    reader = [ROOT / "train.py", *ALONE, "trainer.max_epochs=1", "logs_dir=früh"]
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", '"$0" "$@" | head -1', sys.executable, *map(str, reader)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=False,
        timeout=LONGEST_S,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run folder: fr\\xfch/smoke/")
    assert list((tmp_path / "früh").glob("smoke/*/results.json"))


def test_runs_that_start_in_one_second_get_a_folder_each_and_an_early_end_has_a_reason(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    runs = [start(*ALONE, "trainer.max_time=00:00:00:01") for _ in range(2)]
    assert [run.code() for run in runs] == [0, 0]
    folders = list((tmp_path / "logs" / "smoke").iterdir())
    assert len(folders) == 2
    for folder in folders:
        said = (folder / "run.log").read_text()
        assert "training ended after iteration " in said
        assert " of 500: the time limit is reached" in said
