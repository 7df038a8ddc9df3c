"""What a run says and does when it is asked to stop, piece by piece; whole runs are in ``test_stopping.py``."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from sdar.callbacks.checkpoints import Checkpoints
from sdar.compare.job import STATE_FOLDER
from sdar.compare.launching import Progress
from sdar.errors import Stopped
from sdar.learning.logs import tolerated
from sdar.output.streams import LastingFile, LastingStream
from sdar.run.folder import write_record
from sdar.run.signals import StopSignals
from sdar.run.stopping import StopOnSignal, continuing, how_to_continue, place, why_it_ended
from sdar.run.watch import Others, RankWatch, Sign
from toys.training import HintTeacher, same_weights, toy_datamodule, toy_module, toy_policy, toy_trainer, weights
from toys.waiting import PATIENCE_S


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_at_once_until_the_run_has_something_to_lose(name: str) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.default_int_handler)  # nohup, for one, starts programs that ignore SIGHUP
    try:
        with StopSignals().held() as signals, pytest.raises(Stopped, match=f"stopped by {name}") as stopped:
            signal.raise_signal(number)
        assert stopped.value.code == 128 + number
        with StopSignals().held() as signals:
            signals.patient = True
            signal.raise_signal(number)
            assert signals.number == number
            with pytest.raises(Stopped):
                signals.at_once()
    finally:
        signal.signal(number, before)


def test_handlers_are_given_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        term = signal.getsignal(signal.SIGTERM)
        with StopSignals().held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not term
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_to_a_forked_process_is_not_this_processes() -> None:
    with StopSignals().held() as signals:
        signals.patient = True
        child = os.fork()
        if child == 0:  # as a pool of an environment does
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert signals.number is None


class AskToStop(Callback):
    """Is asked to stop in iteration ``index`` (0-based): while it is played, or after it is learned."""

    def __init__(self, index: int, *, learned: bool) -> None:
        self.index, self.learned = index, learned

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.learned and trainer.current_epoch == self.index:
            signal.raise_signal(signal.SIGTERM)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self.learned and trainer.current_epoch == self.index:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("overlap", [False, True])
def test_training_stops_between_turns_and_continues_as_if_it_had_not(tmp_path: Path, overlap: bool) -> None:
    def run(*more: Callback, ckpt_path: Path | None = None) -> dict[str, torch.Tensor]:
        policy = toy_policy()
        signals = StopSignals()
        stopping = StopOnSignal(signals, tmp_path)
        data, module = toy_datamodule(policy), toy_module(policy, HintTeacher())
        data.collector.settings = module.rollout = replace(data.collector.settings, overlap=overlap)
        stopping.watch(data.collector)
        saving = Checkpoints(tmp_path / "checkpoints", best=None)
        trainer = toy_trainer(2, callbacks=[stopping, *more, saving], enable_checkpointing=True)
        with signals.held():
            trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return weights(module)

    whole = run()
    with pytest.raises(Stopped):
        run(AskToStop(1, learned=False))
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0, "the second iteration was dropped"
    assert same_weights(run(ckpt_path=last), whole)


def test_a_run_without_checkpoints_saves_one_when_it_is_stopped(tmp_path: Path) -> None:
    """Also one that is not due; and the trainer's own handler of the signal is not in the way."""
    for callbacks in ([], [Checkpoints(tmp_path / "checkpoints", every_n_iterations=9, best=None)]):
        policy, signals = toy_policy(), StopSignals()
        stopping = StopOnSignal(signals, tmp_path)
        trainer = toy_trainer(
            3, callbacks=[stopping, AskToStop(1, learned=True), *callbacks], enable_checkpointing=bool(callbacks)
        )
        with signals.held(), pytest.raises(Stopped):
            trainer.fit(toy_module(policy, HintTeacher()), datamodule=toy_datamodule(policy))
        assert stopping.learned == 2
        last = tmp_path / "checkpoints" / "last.ckpt"
        assert torch.load(last, weights_only=True)["epoch"] == 1
        last.unlink()


def test_the_command_that_continues_is_the_one_that_started_without_its_folder_and_checkpoint() -> None:
    command = ["python", "train.py", "run_dir=a", "++ckpt_path=b.ckpt", "environment.num_tasks=[1,2,3]", "name=my run"]
    assert continuing(command, "last") == "python train.py 'environment.num_tasks=[1,2,3]' 'name=my run' ckpt_path=last"
    assert continuing(command, None).startswith("python train.py ++ckpt_path=b.ckpt ")


def test_a_run_outside_of_the_logs_is_continued_by_its_file() -> None:
    assert how_to_continue(Path("logs/a/b"), "logs", ["sdar", "train"], saved=Path("logs/a/b/last.ckpt")).endswith(
        ": sdar train ckpt_path=last"
    )
    elsewhere = how_to_continue(
        Path("mine"), "logs", ["sdar", "train", "run_dir=mine"], saved=Path("mine/checkpoints/last.ckpt")
    )
    assert elsewhere == "continue with: sdar train ckpt_path=mine/checkpoints/last.ckpt"
    assert how_to_continue(Path("mine"), "logs", ["sdar", "train"], saved=None) == "start again with: sdar train"


@pytest.mark.parametrize(
    ("learned", "of", "words"),
    [(3, 60, "after iteration 3 of 60"), (3, -1, "after iteration 3"), (3, None, "after iteration 3")],
)
def test_the_place_is_told(learned: int, of: int | None, words: str) -> None:
    assert place(learned, of) == words
    assert place(0, of) == "before the first iteration was finished"


def test_a_process_that_is_killed_silent_or_ended_is_lost_and_one_that_pauses_with_all_others_is_not() -> None:
    others = Others(silence_s=60)

    def look(now: float, *, beat: int, gone: bool = False, ended: str = "") -> dict[int, str]:
        return others.lost({1: Sign(beat, "process 7 on here", ended)}, {1} if gone else set(), now)

    assert look(0, beat=1) == look(10, beat=2) == {}
    assert look(9000, beat=2) == {}, "this process was stopped, too"
    for now in range(9010, 9060, 10):
        found = look(now, beat=2)
    assert found == {1: "rank 1 (process 7 on here) has given no sign of life for rank_timeout_minutes=1"}
    assert look(9060, beat=3) == look(9061, beat=3, gone=True) == {}
    assert look(9065, beat=3, gone=True) == {1: "rank 1 (process 7 on here) was killed"}
    assert look(9066, beat=4, gone=True, ended="out of memory") == {
        1: "rank 1 (process 7 on here) ended: out of memory"
    }
    assert others.lost({}, {1}, 9070) == {}, "it has ended in order"


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (
            EarlyStopping("rollout/entropy", stopping_threshold=99.0, check_on_train_epoch_end=True),
            r"Stopping threshold reached: rollout/entropy = .*[^.]$",
        ),
        (Timer({"seconds": 0}, interval="epoch"), "the time limit is reached"),
    ],
)
def test_an_early_end_has_a_reason(callback: Callback, reason: str) -> None:
    policy = toy_policy()
    trainer = toy_trainer(3, callbacks=[callback])
    trainer.fit(toy_module(policy, HintTeacher()), datamodule=toy_datamodule(policy))
    assert re.match(reason, str(why_it_ended(trainer, trainer.current_epoch)))


def test_a_stream_outlives_its_reader_and_letters_without_a_code() -> None:
    reading, writing = os.pipe()
    stream = LastingStream(os.fdopen(writing, "w", encoding="ascii"))
    print("müller", file=stream, flush=True)
    assert os.read(reading, 100) == b"m\\xfcller\n"
    os.close(reading)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    closed = LastingStream(io.StringIO())
    closed.close()
    print("x", file=closed, flush=True)


def test_what_is_printed_never_lands_in_a_file_where_a_stream_was_closed(tmp_path: Path) -> None:
    """A shell's ``2>&-``: the next file that is opened would get the number of the stream."""
    program = (
        "from sdar.output.streams import outlive_readers; from sdar.run.signals import StopSignals\n"
        "outlive_readers(); file = open('a.ckpt', 'w'); print('said'); StopSignals().end(3, 'farewell')"
    )
    closing = ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, program]
    assert subprocess.run(closing, cwd=tmp_path, check=False).returncode == 3
    assert (tmp_path / "a.ckpt").read_text() == ""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_a_process_that_is_ending_has_nothing_more_to_say(name: str) -> None:
    program = (
        "import atexit, time; from sdar.errors import run_command\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(600)))\n"
        "run_command(lambda arguments: 143)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.Signals[name])
        assert process.communicate(timeout=PATIENCE_S) == ("", "")
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("program", "how", "code"),
    [
        ("kill -9 $$", "was killed before training began", 1),
        ("kill -11 $$", "was killed by SIGSEGV before training began", 1),
        ("kill -15 $$", "was stopped by SIGTERM before training began", 143),
        ("exit 143", "was stopped by SIGTERM before training began", 143),
        ("exit 255", "ended before training began", 255),
    ],
)
def test_a_process_that_is_gone_before_training_is_named(program: str, how: str, code: int, tmp_path: Path) -> None:
    ended = threading.Event()
    said: list[tuple[int, str]] = []

    class Recording(StopSignals):
        def end(self, code: int, words: str) -> None:  # type: ignore[override]
            said.append((code, words))
            ended.set()

    with subprocess.Popen(["sh", "-c", program]) as process:
        launcher = SimpleNamespace(procs=[process])
        trainer: Any = SimpleNamespace(
            world_size=2,
            global_rank=0,
            node_rank=0,
            num_devices=2,
            loggers=[],
            strategy=SimpleNamespace(launcher=launcher),
        )
        watch = RankWatch(Recording(), 60, tmp_path, lambda: "start again")
        watch.fit(trainer, lambda: None if ended.wait(PATIENCE_S) else pytest.fail("nobody noticed"))
    assert said[0] == (code, f"error: rank 1 (process {process.pid}) {how}; start again")


def test_a_sweep_tells_runs_that_were_stopped_from_those_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, code in enumerate((143, -9, 1)):
        state = {"state": "failed", "code": code, "started": 0, "ended": 60, "log": "output.log"}
        write_record(tmp_path / STATE_FOLDER / f"{number}.json", state)
    Progress(tmp_path, ["a", "b", "c"], 1).look()
    shown = capsys.readouterr().out
    assert "a: stopped by SIGTERM after" in shown
    assert "b: stopped by SIGKILL after" in shown
    assert "c: FAILED with exit code 1 after" in shown


def test_a_log_on_a_full_disk_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    file = LastingFile("/dev/full", delay=True)
    for _ in range(3):
        file.handle(logging.makeLogRecord({"msg": "a line", "levelno": logging.INFO}))
    file.close()
    assert capsys.readouterr().err == "WARNING: /dev/full cannot be written; the run goes on without it\n"


def test_an_error_of_the_system_in_a_librarys_own_is_tolerated_and_others_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "sdar"), tolerated("this log"):
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise ValueError("you tried to log something") from error
    assert caplog.messages == ["this log cannot be written (No space left on device); training goes on without it"]
    with pytest.raises(ValueError, match="a mistake"), tolerated("this log"):
        raise ValueError("a mistake")
