"""Whole runs in forked processes: nothing is imported twice, and a run may be killed at any point of its own code."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sdar.environments.alfworld.environment
import sdar.policy.lora
import sdar.policy.tiny
import sdar.run.session  # noqa: F401 - imported once, for all forks
from sdar.commands.train import cli, main
from sdar.run.validate import compose

compose()  # what is made for the first configuration is there for all

Strike = Callable[[], None]
"""Installed in the forked process before its run begins."""
ROOT = Path(__file__).resolve().parents[2]
TIMINGS = ("time/", "throughput/")
DEFECT = 99
"""Exit code of a run that ended by an exception of its own."""


def fork_run(arguments: Sequence[str], log: Path, strike: Strike | None = None, ranks: int = 1) -> list[int]:
    """Run ``sdar train`` and return its exit code, or minus the signal that ended it, of every rank.

    Once a rank is gone the others are killed: what a scheduler does.
    """
    from toys.waiting import held_port  # here: table.py is a program, which finds this folder alone

    with held_port() as port:
        children = [start(arguments, log, strike, rank, ranks, port) for rank in range(ranks)]
        return wait(children, kill_others=True)


def start(
    arguments: Sequence[str], log: Path, strike: Strike | None = None, rank: int = 0, ranks: int = 1, port: int = 0
) -> int:
    """Fork one process of a run; what it says goes to the log."""

    def run() -> int:
        if ranks > 1:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": str(port)}
            number = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
            os.environ |= where | {name: str(value) for name, value in number.items()}
        if strike is not None:
            strike()
        return main(list(arguments))

    return fork(run, log)


def start_program(arguments: Sequence[str], folder: Path, environ: Mapping[str, str], out: Path, err: Path) -> int:
    """Fork ``python train.py ...`` as it is called in a folder; the processes that it starts are new ones."""

    def run() -> int:
        os.chdir(folder)
        os.environ |= environ
        sys.argv = [str(ROOT / "train.py"), *arguments]
        sys.modules["__main__"].__spec__ = None  # as of a script: how it is started again
        cli()
        return 0

    return fork(run, out, err)


def fork(act: Callable[[], int], out: Path, err: Path | None = None) -> int:
    """Fork a process in a group of its own that ends with the code of ``act``; what it says goes to files."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = DEFECT
    try:
        os.setsid()
        for number, file in ((1, out), (2, err or out)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = act()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else DEFECT
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(children: Sequence[int], *, kill_others: bool = False, seconds: float = 600) -> list[int]:
    """Exit codes of all; a process that takes longer fails the test."""
    codes: dict[int, int] = {}
    limit = time.monotonic() + seconds
    while len(codes) < len(children):
        for child in children:
            if child in codes:
                continue
            done, status = os.waitpid(child, os.WNOHANG)
            if not done:
                continue
            codes[child] = os.waitstatus_to_exitcode(status)
            if kill_others and codes[child] != 0:
                for other in children:
                    if other not in codes:
                        os.kill(other, signal.SIGKILL)
        if time.monotonic() > limit:
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
            raise AssertionError(f"a run did not end within {seconds:.0f} s")
        time.sleep(0.02)
    return [codes[child] for child in children]


def die() -> None:
    """What a scheduler or the kernel does to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: Any, name: str, number: int, act: Callable[[], Any] = die, *, after: bool = False) -> Strike:
    """Act at the ``number``-th call (1-based) of a function of a module or class, before it or ``after`` it."""

    def install() -> None:
        original = getattr(owner, name)
        calls = 0

        def called(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                act()
            result = original(*arguments, **more)
            if calls == number and after:
                act()
            return result

        setattr(owner, name, called)

    return install


def half_written(number: int) -> Strike:
    """Die when half of the ``number``-th checkpoint is on the disk."""

    def install() -> None:
        original = torch.save
        calls = 0

        def save(content: Any, file: Any, *arguments: Any, **more: Any) -> None:
            nonlocal calls
            calls += 1
            original(content, file, *arguments, **more)
            if calls == number:
                file.flush()
                os.ftruncate(file.fileno(), file.tell() // 2)
                die()

        torch.save = save

    return install


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All curves of a run but those of the clock: tag -> (step, value)."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(TIMINGS)]
    return {tag: sorted({(event.step, event.value) for event in events.Scalars(tag)}) for tag in tags}


def state(checkpoint: Path) -> dict[str, Any]:
    """What decides how a run goes on: weights, moments, learning rates, schedules, and what the teacher remembers."""
    content = torch.load(checkpoint, weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers")
    return {name: content[name] for name in content if name in kept or name.startswith("sdar_teacher")} | {
        "schedules": content["sdar_schedules"]
    }


def same(first: Any, second: Any) -> bool:
    """Whether two nested values are equal to the last bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
