"""Several runs, each in a process of its own, by one of Hydra's launchers. Serves sweeps and comparisons."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from sdar.callbacks.duration import duration
from sdar.compare import launcher
from sdar.compare.job import PLAN_FILE, STATE_FOLDER
from sdar.compare.shape import Shape, is_bool, is_code, is_count, is_number, is_path, maybe, record_of
from sdar.errors import INTERRUPTED, UserError
from sdar.files import GB, KB, FileError, opened
from sdar.output.printable import printable
from sdar.processes import cores
from sdar.run.folder import STATE_FILE, read_record, write_record

TRAIN = [sys.executable, "-u", "-m", "sdar.commands.train"]
"""The program that a job runs, without its settings."""

_EVERY = 120.0
"""Seconds between two lines with the estimate."""

States = Mapping[int, Mapping[str, Any]]

_BEGUN: dict[str, Shape] = {"log": is_path, "started": is_number}
_ENDED = record_of(**_BEGUN, ended=is_number, code=is_code)
_STATES = {"running": record_of(**_BEGUN, run_dir=is_path, resumed=is_bool), "done": _ENDED, "failed": _ENDED}
"""What is read of a job's state, as :func:`sdar.compare.job.run_job` writes it."""
_ITERATIONS = record_of(iteration=is_count, of=maybe(is_count))
_LOG, _END = 1_000 * GB, 64 * KB
"""Bytes of the largest log, and how many of its end are read."""


@dataclass(frozen=True)
class Launcher:
    """How jobs are launched.

    ``name``       of the Hydra launcher
    ``overrides``  its settings
    ``at_a_time``  runs side by side; None: the cluster decides
    ``threads``    CPU threads of each run; None: as the environment of each says, or as many as there are cores
    """

    name: str
    overrides: tuple[str, ...]
    at_a_time: int | None
    threads: int | None


def choose_launcher(name: str | None, overrides: Sequence[str], jobs: int | None, threads: int | None) -> Launcher:
    """The requested launcher, checked, with the cores divided among runs side by side.

    Args:
        name: of the Hydra launcher; None: chosen by ``jobs``.
        overrides: ``hydra.launcher.*``.
        jobs: runs at a time on this machine; None: the launcher decides.
        threads: of each run, as configured; None: the cores are divided among runs side by side, of which none has more
            than ``OMP_NUM_THREADS`` says.

    Raises:
        UserError: the launcher is not installed, its settings are wrong, or jobs x threads exceeds the cores.
    """
    name = name or ("basic" if jobs in (None, 1) else "joblib")
    chosen = tuple(overrides)
    at_a_time: int | None = None
    if name == "basic":
        if jobs not in (None, 1):
            raise UserError(f"hydra/launcher=basic runs one at a time: jobs must be 1, got {jobs}")
        at_a_time = 1
    elif name == "joblib":
        number = next((text.partition("=")[2] for text in chosen if _sets_jobs(text)), None)
        if number is not None and jobs is not None:
            raise UserError("hydra.launcher.n_jobs and jobs both set the number of runs at a time; set jobs alone")
        if number == "0":
            raise UserError("hydra.launcher.n_jobs must be >= 1, or -1 for one run per core, got 0")
        at_a_time = jobs or (int(number) if number is not None and number.isdecimal() else cores())
        chosen = (
            *(text for text in chosen if not _sets_jobs(text)),
            f"hydra.launcher.n_jobs={at_a_time}",
            # Runs are long and differ in length: a worker takes the next as soon as it is free.
            "hydra.launcher.batch_size=1",
            "hydra.launcher.pre_dispatch=n_jobs",
        )
    elif jobs is not None:
        raise UserError(f"jobs={jobs} is for hydra/launcher=joblib; {name} has settings of its own")
    launcher.check_launcher(name, chosen)
    if at_a_time is not None and at_a_time > 1:
        if threads is None:
            share = max(1, cores() // at_a_time)
            threads = min(share, threads_of_environment() or share)
        if at_a_time * threads > cores():
            raise UserError(
                f"jobs x threads must be <= {cores()}, the number of cores, got jobs={at_a_time} and threads={threads}"
            )
    return Launcher(name, chosen, at_a_time, threads)


def _sets_jobs(override: str) -> bool:
    return override.lstrip("+").partition("=")[0] == "hydra.launcher.n_jobs"


def launch(
    folder: Path, jobs: Sequence[Mapping[str, Any]], how: Launcher, *, resumes: bool = True
) -> dict[int, dict[str, Any]]:
    """Run all jobs and return the last state of each that began, by its number.

    Args:
        folder: of the sweep, for the plan, the states of the jobs and the launcher's log.
        jobs: records, see :func:`job_record`.
        how: the launcher.
        resumes: whether the same command continues the runs.

    Raises:
        UserError: the launcher itself failed.
        SystemExit: it was stopped (130). Finished runs are kept; the others can be continued.
    """
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    for old in (folder / STATE_FOLDER).glob("*.json"):
        old.unlink()
    write_record(folder / PLAN_FILE, {"launcher": how.name, "settings": list(how.overrides), "jobs": list(jobs)})
    threads = "" if how.threads is None else f", {how.threads} threads each"
    side = "as the launcher decides" if how.at_a_time is None else f"{how.at_a_time} at a time"
    print(f"{len(jobs)} runs to make, {side}{threads} (hydra/launcher={how.name})", flush=True)
    progress = Progress(folder, [job["label"] for job in jobs], how.at_a_time)
    process = launcher.start(folder, range(len(jobs)), how.name, how.overrides)
    try:
        with _every_end_is_ctrl_c() as ended_by:
            while process.poll() is None:
                progress.look()
                time.sleep(1.0)
        progress.look()
    except KeyboardInterrupt:
        launcher.stop(process)
        done = sum(state["state"] == "done" for state in progress.states().values())
        print(
            f"\nstopped; {done} of {len(jobs)} runs were finished and are kept."
            + (" The same command reuses them and continues the others from their last checkpoint." if resumes else "")
            + ("" if how.at_a_time is not None else " Jobs that a cluster has accepted go on there."),
            flush=True,
        )
        raise SystemExit(128 + ended_by[0] if ended_by else INTERRUPTED) from None
    states = progress.states()
    if process.returncode != 0 and len(states) < len(jobs):
        log = folder / launcher.LOG_FILE
        raise UserError(f"hydra/launcher={how.name} failed: {last_line(log)} (see {log})")
    return states


def job_record(
    label: str,
    arguments: Sequence[str],
    config: Mapping[str, Any],
    how: Launcher,
    *,
    mark: str,
    checkpoint: Path | None = None,
    run_dir: str | None = None,
) -> dict[str, Any]:
    """What a job needs, in plain values, as it may be read on another machine.

    ``mark`` is part of the name of the run's folder, and keeps runs apart that start in the same second. ``run_dir`` is
    the folder itself, where it was set.
    """
    return {
        "label": label,
        "arguments": list(arguments),
        "logs_dir": str(Path(config["logs_dir"]).absolute()),
        "name": config["name"],
        "mark": mark,
        "command": TRAIN,
        "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
        "run_dir": None if run_dir is None else str(Path(run_dir).absolute()),
        "threads": config["threads"] or how.threads,
    }


def threads_of_environment(environ: Mapping[str, str] = os.environ) -> int | None:
    """CPU threads that ``OMP_NUM_THREADS`` asks for; None: it does not say."""
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


@contextmanager
def _every_end_is_ctrl_c() -> Iterator[list[int]]:
    """Turn the signals that end this process into Ctrl-C: its launcher, in another session, must end with it.

    Gives a list that has the signal's number afterwards, if there was one.
    """
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


class Progress:
    """Follows the state files that the jobs write, wherever they run, and prints a line per change.

    Args:
        folder: of the sweep.
        labels: the names of the runs, by job number.
        at_a_time: runs side by side; None: unknown (a cluster), without an estimate.
    """

    def __init__(self, folder: Path, labels: Sequence[str], at_a_time: int | None) -> None:
        self.folder = folder
        self.labels = labels
        self.at_a_time = at_a_time
        self._shown: dict[int, str] = {}
        self._spoke = time.time()

    def states(self) -> dict[int, dict[str, Any]]:
        """The state of every job that has begun; a file of another shape says nothing."""
        files = [self.folder / STATE_FOLDER / f"{number}.json" for number in range(len(self.labels))]
        return {number: state for number, file in enumerate(files) if (state := _state(file)) is not None}

    def look(self) -> None:
        """Print what has changed since the last look, and from time to time what is left."""
        states = self.states()
        for number, state in states.items():
            if self._shown.get(number) != state["state"]:
                self._shown[number] = state["state"]
                self._say(_event(self.labels[number], state), states)
        if time.time() - self._spoke >= _EVERY:
            self._say(f"{sum(state['state'] == 'running' for state in states.values())} running", states)

    def _say(self, text: str, states: States) -> None:
        self._spoke = time.time()
        ended = sum(state["state"] != "running" for state in states.values())
        seconds = self.estimate(states)
        left = f", about {duration(seconds)} left" if seconds else ""
        print(f"{printable(text)}; {ended} of {len(self.labels)} ended{left}", flush=True)

    def estimate(self, states: States) -> float | None:
        """Seconds until the last run ends, from the runs of this call so far. None if nothing is known yet."""
        now = time.time()
        running = [state for state in states.values() if state["state"] == "running"]
        whole: list[float] = [
            state["ended"] - state["started"] for state in states.values() if state["state"] == "done"
        ]
        shares = [(state, _share_done(Path(state["run_dir"]))) for state in running]
        whole += [(now - state["started"]) / share for state, share in shares if share]
        if self.at_a_time is None or not whole:
            return None
        mean = statistics.fmean(whole)
        rest: list[float] = [max(0.0, mean - (now - state["started"])) for state in running]
        work = sum(rest) + mean * (len(self.labels) - len(states))
        return max([work / self.at_a_time, *rest])


def _state(file: Path) -> dict[str, Any] | None:
    """The state of a job; None where there is none, or the file has another shape."""
    state = read_record(file)
    if state is None or not isinstance(name := state.get("state"), str) or name not in _STATES:
        return None
    return state if _STATES[name](state) else None


def _event(label: str, state: Mapping[str, Any]) -> str:
    if state["state"] == "running":
        return f"{label}: {'continues' if state['resumed'] else 'starts'}, {state['log']}"
    took = duration(state["ended"] - state["started"])
    if state["state"] == "done":
        return f"{label}: done after {took}"
    return f"{label}: {_failure(state['code'])} after {took}, see {state['log']}"


def _failure(code: int) -> str:
    """How a run ended that is not done: by a signal, of which its exit code tells, or by an error."""
    number = -code if code < 0 else code - 128
    if number in signal.valid_signals():
        return f"stopped by {signal.Signals(number).name}"
    return f"FAILED with exit code {code}"


def _share_done(folder: Path) -> float:
    """The share of its iterations that a run has finished. 0 if it is unknown."""
    state = read_record(folder / STATE_FILE) or {}
    return state["iteration"] / state["of"] if _ITERATIONS(state) and state.get("of") else 0.0


def last_line(log: Path) -> str:
    """The last line of a log, which is the reason of a failure. Empty if there is none."""
    try:
        with opened(log, _LOG) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            text = file.read(_END).decode("utf-8", "replace")
    except (FileError, OSError):
        return ""
    return printable("".join(text.rstrip().splitlines()[-1:]).strip()[:300])
