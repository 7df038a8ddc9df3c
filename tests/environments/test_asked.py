"""Environments that do not answer, or end the process: whoever plays them is told and goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from sdar.commands.play import play
from sdar.commands.players import Person
from sdar.environments import EnvironmentCheckError, check_env
from sdar.environments.asked import answering
from sdar.environments.worker import Worker
from sdar.errors import RunFailed
from toys.rollouts import CountingEnvironment, CountingPool
from toys.waiting import Deadlines, passing_deadlines

LATE_S = 60.0
METHODS = ("splits", "tasks", "open_pool", "reset", "opening", "project", "step")
PLAYED = ("open_pool", "reset", "opening", "project", "step")


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    """Pass as soon as something hangs."""
    with passing_deadlines() as made:
        yield made


def broken(method: str, fault: Any) -> CountingEnvironment:
    """An environment of which one method, of itself or of its pools, does something else."""
    if not hasattr(CountingPool, method):
        return type("Broken", (CountingEnvironment,), {method: lambda self, *_: fault()})()
    pool = type("BrokenPool", (CountingPool,), {method: lambda self, *_: fault()})
    return type("Broken", (CountingEnvironment,), {"open_pool": lambda self: pool(self)})()


def leave() -> NoReturn:
    raise SystemExit(0)


@pytest.mark.parametrize("method", METHODS)
def test_a_check_tells_an_environment_that_exits(method: str) -> None:
    with pytest.raises(EnvironmentCheckError, match="raises SystemExit"):
        check_env(broken(method, leave))


@pytest.mark.parametrize("method", METHODS)
def test_a_check_ends_when_an_answer_is_late(deadlines: Deadlines, method: str) -> None:
    with pytest.raises(EnvironmentCheckError, match=f"{method} did not answer within 60 s"):
        check_env(broken(method, deadlines.hang), timeout_s=LATE_S)


def test_a_check_tells_an_environment_whose_name_exits() -> None:
    with pytest.raises(EnvironmentCheckError, match="the environment raises SystemExit"):
        check_env(type("Broken", (CountingEnvironment,), {"name": property(lambda self: leave())})())


def test_threads_of_a_checked_environment_do_not_keep_the_process_alive() -> None:
    started: list[threading.Thread] = []

    def start() -> NoReturn:
        started.append(threading.Thread(target=int))
        raise LookupError

    with pytest.raises(EnvironmentCheckError):
        check_env(broken("step", start))
    assert all(thread.daemon for thread in started)


def play_with(environment: CountingEnvironment) -> None:
    played = answering(environment, Worker(LATE_S))
    person = Person(played, lambda _: "<action>act</action>", lambda _: None)
    play(played, environment.tasks("train")[0], person, lambda _: None)


@pytest.mark.parametrize("method", PLAYED)
def test_play_ends_when_an_answer_is_late(deadlines: Deadlines, method: str) -> None:
    with pytest.raises(RunFailed, match=f"cannot be played on: {method} did not answer within 60 s$"):
        play_with(broken(method, deadlines.hang))


@pytest.mark.parametrize("method", PLAYED)
def test_play_tells_an_environment_that_exits(method: str) -> None:
    with pytest.raises(RunFailed, match=f"^the environment cannot be played on: {method} raises SystemExit: 0$"):
        play_with(broken(method, leave))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "going_on",
    [
        "threading.Thread(target=time.sleep, args=(600,)).start()",
        "atexit.register(time.sleep, 600)",
        "concurrent.futures.ThreadPoolExecutor().submit(time.sleep, 600)",
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(20,)).start()",
    ],
)
def test_a_command_ends_whatever_goes_on(going_on: str) -> None:
    code = f"""
import atexit, concurrent.futures, multiprocessing, sys, threading, time
from sdar.output.leaving import leave_soon
{going_on}
print("told")
leave_soon(3, grace_s=0.1, end_s=0.2)
sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (3, "told\n")
