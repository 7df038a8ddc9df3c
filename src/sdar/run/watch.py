"""Whether the other processes of a run are still there: each gives a sign of life, and each looks at all the others.

The signs are small files in the run folder, so they need no connection, which waits for a process that was stopped. A
process that has ended, however it ended, is known by its lock, which is the operating system's.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from sdar.errors import FAILED, RunFailed, Stopped, UserError
from sdar.run.folder import is_occupied, occupied, read_record, write_record
from sdar.run.signals import STOPPING, StopSignals

FOLDER = ".ranks"
_SIGN = "sign.json"

_UNSURE = 3.0
"""Seconds for which a process must have been gone: the others may be about to end for the same reason."""

_COLLECTIVE = 15.0
"""Seconds to find out whose fault it is when talking to the others has failed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sign:
    """What a process says of itself.

    ``beat``    another number whenever it was alive
    ``where``   its number and machine
    ``ended``   why it ends before its time; "" otherwise
    ``signal``  by which signal it was stopped; 0: by none
    """

    beat: int
    where: str
    ended: str = ""
    signal: int = 0

    @property
    def machine(self) -> str:
        """Its name."""
        return self.where.rpartition(" on ")[2]


class Others:
    """Judges the signs of all processes by the clock of this one, which rests while this one is stopped itself.

    Args:
        silence_s: seconds without a new sign after which a process is lost.
    """

    def __init__(self, silence_s: float) -> None:
        self.silence_s = silence_s
        self._clock = 0.0
        self._looked: float | None = None
        self._seen: dict[int, tuple[int, float]] = {}
        self._gone: dict[int, float] = {}

    def lost(self, signs: Mapping[int, Sign], gone: set[int], now: float) -> dict[int, str]:
        """What became of each lost process, by rank. To be asked several times within ``silence_s``.

        Args:
            signs: of every process that has given one and has not ended in order.
            gone: those that no longer exist.
            now: seconds of a clock that never goes back.
        """
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked, self._clock = now, self._clock + min(passed, self.silence_s / 4)
        self._gone = {rank: self._gone.get(rank, now) for rank in gone & signs.keys()}
        found: dict[int, str] = {}
        for rank, sign in signs.items():
            beat, since = self._seen.get(rank, (None, self._clock))
            since = since if beat == sign.beat else self._clock
            self._seen[rank] = sign.beat, since
            name = f"rank {rank} ({sign.where})"
            if now - self._gone.get(rank, now) >= _UNSURE:
                found[rank] = f"{name} ended: {sign.ended}" if sign.ended else f"{name} was killed"
            elif self._clock - since >= self.silence_s:
                minutes = f"{self.silence_s / 60:g}"
                found[rank] = f"{name} has given no sign of life for rank_timeout_minutes={minutes}"
        return found


class RankWatch(Callback):
    """Ends this process when another one of its run is lost, in one sentence that names it.

    The process ends without cleaning up: its main thread may wait for the lost one for ever.

    Args:
        signals: of this process.
        silence_s: seconds without a sign of life after which a process counts as lost.
        folder: of the run; that of the first process counts.
        more: the end of the sentence: after which iteration, and how to go on.
    """

    def __init__(self, signals: StopSignals, silence_s: float, folder: Path, more: Callable[[], str]) -> None:
        self.signals = signals
        self.folder = folder
        self.more = more
        self._others = Others(silence_s)
        self._children: list[subprocess.Popen[bytes]] = []
        self._stop = threading.Event()
        self._rank: int | None = None
        self._beat = 0
        self._lock = ExitStack()
        self._signing = threading.Lock()
        self._held: set[int] = set()  # ranks whose locks can be seen from here

    def fit(self, trainer: Trainer, fit: Callable[[], None]) -> None:
        """Call ``fit``, watching; alone there is nothing to watch.

        Raises:
            RunFailed: the processes could not talk to one another, though all of them are there.
        """
        if trainer.world_size == 1:
            fit()
            return
        thread = threading.Thread(target=self._watch, args=(trainer,), name="rank-watch", daemon=True)
        self.signals.last = lambda: self._abandon(trainer)
        thread.start()
        together = False
        try:
            fit()
            together = True
        except Stopped as stopped:
            together = self.signals.patient
            self._part("" if together else f"stopped by {signal.Signals(stopped.number).name}", stopped.number)
            raise
        except Exception as error:
            if _is_of_connection(error) and not self._stop.wait(_COLLECTIVE):  # the thread may find out why, and end us
                error = RunFailed(f"the processes of the run lost touch with one another ({_first_line(error)})")
            known = isinstance(error, UserError | RunFailed)
            told = self._part(str(error) if known else _first_line(error)) and trainer.global_rank > 0
            # The first process has the same error, or reads of this one in its last sign.
            raise (type(error)("") if known and told else error) from error.__cause__
        finally:
            self._part("")
            thread.join()
            if not together:
                self._kill_children()
            self._await_children()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Begin to give signs; all processes can talk to one another now."""
        if trainer.world_size > 1:
            self._place = Path(trainer.strategy.broadcast(str(self.folder.absolute()))) / FOLDER
            self._place /= str(trainer.global_rank)
            self._lock.enter_context(occupied(self._place))
            with self._signing:
                self._give_sign()
            self._rank = trainer.global_rank

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """What others do is no longer of interest to a process that ends by itself."""
        if not _is_of_connection(exception):
            self._stop.set()

    def _give_sign(self, ended: str = "", number: int = 0) -> None:
        """To be called by who holds ``_signing``: a sign that comes late would undo the last one."""
        self._beat += 1
        sign = Sign(self._beat, f"process {os.getpid()} on {socket.gethostname()}", ended, number)
        with suppress(OSError):  # a full disk ends nothing before the others' patience does
            write_record(self._place / _SIGN, vars(sign))

    def _part(self, ended: str, number: int = 0) -> bool:
        """Give the last sign: why this process ends before its time, or none; False if it never gave any."""
        self._stop.set()
        rank, self._rank = self._rank, None
        if rank is None:
            return False
        with self._signing:
            if ended:
                self._give_sign(ended, number)
                self._lock.close()
                return True
            with suppress(OSError):
                (self._place / _SIGN).unlink()
            self._lock.close()
        with suppress(OSError):
            self._place.rmdir()
            self._place.parent.rmdir()
        return True

    def _watch(self, trainer: Trainer) -> None:
        period = max(1.0, trainer.world_size / 4)  # every process reads the signs of all
        due = 0.0
        while not self._stop.wait(0.2):
            self._adopt(trainer)
            if self._rank is None:
                self._look_at_children(trainer)
            elif time.monotonic() >= due:
                due = time.monotonic() + period
                with self._signing:
                    if not self._stop.is_set():
                        self._give_sign()
                self._look()

    def _adopt(self, trainer: Trainer) -> None:
        """Take the processes that the strategy has started from Lightning, which would kill this one without a word."""
        started: list[Any] = getattr(trainer.strategy.launcher, "procs", [])
        while started:
            self._children.append(started.pop(0))

    def _look_at_children(self, trainer: Trainer) -> None:
        """While nobody gives signs yet."""
        for rank, child in enumerate(self._children, trainer.node_rank * trainer.num_devices + 1):
            if code := child.poll():
                how, own = _how_it_ended(code)
                self._lose([f"rank {rank} (process {child.pid}) {how} before training began"], own)

    def _look(self) -> None:
        files = {int(file.parent.name): file for file in self._place.parent.glob(f"*/{_SIGN}")}
        records = {rank: read_record(file) for rank, file in files.items() if rank != self._rank}
        signs = {rank: Sign(**record) for rank, record in records.items() if record is not None}
        held = {rank for rank in signs if is_occupied(files[rank].parent)}
        self._held |= held
        # There may be no locks here, or none that other machines see. Then only silence tells.
        if is_occupied(self._place):
            self._held |= {rank for rank, sign in signs.items() if sign.machine == socket.gethostname()}
        gone = (self._held & signs.keys()) - held
        lost = self._others.lost(signs, gone, time.monotonic())
        if lost and not self._stop.is_set():
            speaks = self._rank == min(files.keys() - lost.keys(), default=self._rank)
            stopped = max(signs[rank].signal for rank in lost)
            with self._signing:
                self._give_sign("it had lost another process", stopped)
            self._lose(list(lost.values()) if speaks else [], 128 + stopped if stopped else FAILED)

    def _lose(self, lost: Sequence[str], code: int) -> None:
        words = f"error: {'; '.join(lost)}; {self.more()}" if lost else ""
        if words:
            log.info("%s", words)
        self.signals.end(code, words)

    def _abandon(self, trainer: Trainer) -> None:
        self._kill_children()
        for logger in trainer.loggers:
            with suppress(Exception):  # what it still keeps is worth a try
                logger.finalize("failed")

    def _kill_children(self) -> None:
        for child in self._children:
            child.kill()

    def _await_children(self) -> None:
        for child in self._children:
            try:
                child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                child.kill()


def _how_it_ended(code: int) -> tuple[str, int]:
    """In words, from an exit code or minus a signal, and the exit code of those who end because of it."""
    number = -code if code < 0 else code - 128
    name = next((known.name for known in signal.Signals if known == number), None)
    if name is None:
        return "ended", max(code, FAILED)
    if name in STOPPING:
        return f"was stopped by {name}", 128 + number
    return "was killed" if name == "SIGKILL" else f"was killed by {name}", FAILED


def _is_of_connection(error: BaseException) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
