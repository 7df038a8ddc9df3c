"""Promises of watching the other processes of a run, here played by threads: no healthy one is taken for a lost one."""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from lightning import LightningModule, Trainer

from sdar.run import watch
from sdar.run.signals import StopSignals
from sdar.run.watch import RankWatch
from toys.waiting import PATIENCE_S

LONG_ENOUGH = 5.0
"""Seconds in which a process that is gone is found out."""


class Recorded(StopSignals):
    """Remembers what would have ended the process."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[int, str]] = []

    def end(self, code: int, words: str) -> Any:
        self.ended.append((code, words))


def trainer(rank: int) -> Trainer:
    strategy = SimpleNamespace(broadcast=lambda value: value, launcher=None)
    return cast(
        Trainer,
        SimpleNamespace(world_size=2, global_rank=rank, node_rank=0, num_devices=2, strategy=strategy, loggers=[]),
    )


def play(folder: Path, work: dict[int, Callable[[], object]]) -> dict[int, Recorded]:
    """Run every rank's work as its fit, each in a thread."""
    signals = {rank: Recorded() for rank in work}

    def run(rank: int) -> None:
        watching = RankWatch(signals[rank], 600.0, folder, lambda: "go on")

        def fit() -> None:
            watching.setup(trainer(rank), cast(LightningModule, None), "fit")
            work[rank]()

        watching.fit(trainer(rank), fit)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return signals


@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_live_are_not_lost_with_and_without_locks(
    locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", refuse)
    found = play(tmp_path, {rank: lambda: time.sleep(LONG_ENOUGH) for rank in (0, 1)})
    assert [signals.ended for signals in found.values()] == [[], []]
    assert not (tmp_path / watch.FOLDER).exists()


def test_a_process_that_ends_in_order_while_it_gives_a_sign_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writing = watch.write_record, threading.Event()

    def slowly(path: Path, record: Any) -> None:
        if path.parent.name == "1" and record["beat"] == 2:
            writing.set()
            time.sleep(0.3)
        write(path, record)

    monkeypatch.setattr(watch, "write_record", slowly)
    found = play(tmp_path, {0: lambda: time.sleep(LONG_ENOUGH), 1: lambda: writing.wait(PATIENCE_S)})
    assert found[0].ended == []
    assert not (tmp_path / watch.FOLDER).exists()
