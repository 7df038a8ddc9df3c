"""Running several runs, each in a process of its own, by one of Hydra's launchers: sweeps and comparisons alike."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.compare import launcher
from sdar.compare.job import PLAN_FILE, STATE_FOLDER
from sdar.compare.progress import Progress, last_line
from sdar.errors import INTERRUPTED, UserError
from sdar.processes import cores
from sdar.run.folder import write_record

JOBLIB = "joblib"
BASIC = "basic"

TRAIN = [sys.executable, "-u", "-m", "sdar.commands.train"]
"""The program that a job runs, without its settings."""


@dataclass(frozen=True)
class Launcher:
    """How jobs are launched.

    ``name``       of the Hydra launcher
    ``overrides``  its settings
    ``at_a_time``  runs side by side; None: the cluster decides
    ``threads``    CPU threads of each run; None: as many as there are cores
    """

    name: str
    overrides: tuple[str, ...]
    at_a_time: int | None
    threads: int | None


def choose_launcher(name: str | None, overrides: Sequence[str], jobs: int | None, threads: int | None) -> Launcher:
    """The launcher that was asked for, checked, with threads so that runs side by side do not fight for the cores.

    Args:
        name: of the Hydra launcher; None: chosen by ``jobs``.
        overrides: ``hydra.launcher.*``.
        jobs: runs at a time on this machine; None: as the launcher says.
        threads: of each run, as configured.

    Raises:
        UserError: it is not installed, its settings are wrong, or jobs x threads exceeds the cores.
    """
    name = name or (BASIC if jobs in (None, 1) else JOBLIB)
    chosen = list(overrides)
    if name == BASIC:
        if jobs not in (None, 1):
            raise UserError(f"jobs={jobs}, but hydra/launcher=basic runs one at a time; set jobs=1")
        at_a_time: int | None = 1
    elif name == JOBLIB:
        number = next((text.partition("=")[2] for text in chosen if text.startswith("hydra.launcher.n_jobs")), None)
        if number is not None and jobs is not None:
            raise UserError("hydra.launcher.n_jobs and jobs both say how many runs go at a time; set jobs alone")
        at_a_time = jobs or (int(number) if number is not None and number.isdecimal() else cores())
        chosen = [text for text in chosen if not text.startswith("hydra.launcher.n_jobs")]
        chosen.append(f"hydra.launcher.n_jobs={at_a_time}")
        # Runs take long and differ in length: a worker takes the next as soon as it is free.
        chosen += ["hydra.launcher.batch_size=1", "hydra.launcher.pre_dispatch=n_jobs"]
    else:
        if jobs is not None:
            raise UserError(f"jobs={jobs} is for hydra/launcher=joblib; {name} has settings of its own")
        at_a_time = None
    launcher.check_launcher(name, chosen)
    if at_a_time is not None and at_a_time > 1:
        if threads is None:
            threads = max(1, cores() // at_a_time)
        if at_a_time * threads > cores():
            raise UserError(
                f"jobs={at_a_time} with threads={threads} makes {at_a_time * threads} threads share {cores()} cores, "
                f"which slows all runs down; jobs x threads must be <= {cores()}"
            )
    return Launcher(name, tuple(chosen), at_a_time, threads)


def launch(
    folder: Path, jobs: Sequence[Mapping[str, Any]], how: Launcher, *, resumes: bool = True
) -> dict[int, dict[str, Any]]:
    """Run all jobs; returns the last state of each that began, by its number.

    Args:
        folder: of the sweep: the plan, the jobs' states and the launcher's log lie there.
        jobs: records, see :func:`job_record`.
        how: the launcher.
        resumes: whether the same command, called again, goes on with what is there.

    Raises:
        UserError: the launcher itself gave up.
        SystemExit: it was stopped (130); finished runs are kept, the others can be continued.
    """
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    for old in (folder / STATE_FOLDER).glob("*.json"):
        old.unlink()
    write_record(folder / PLAN_FILE, {"launcher": how.name, "settings": list(how.overrides), "jobs": list(jobs)})
    threads = "" if how.threads is None else f", {how.threads} threads each"
    side = "as the launcher decides" if how.at_a_time is None else f"{how.at_a_time} at a time"
    print(f"{len(jobs)} runs to make, {side}{threads} (hydra/launcher={how.name})", flush=True)
    progress = Progress(folder, {n: job["label"] for n, job in enumerate(jobs)}, at_a_time=how.at_a_time)
    process = launcher.start(folder, range(len(jobs)), how.name, how.overrides)
    try:
        with _every_end_is_ctrl_c():
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
        raise SystemExit(INTERRUPTED) from None
    states = progress.states()
    if process.returncode != 0 and len(states) < len(jobs):
        log = folder / launcher.LOG_FILE
        raise UserError(f"hydra/launcher={how.name} gave up: {last_line(log)} (see {log})")
    return states


def job_record(
    label: str,
    arguments: Sequence[str],
    config: Mapping[str, Any],
    how: Launcher,
    *,
    mark: str,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """What a job needs to know, in plain values: it may be read on another machine.

    ``mark`` goes into the name of the run's folder: runs that start in the same second need one each.
    """
    return {
        "label": label,
        "arguments": list(arguments),
        "logs_dir": str(Path(config["logs_dir"]).absolute()),
        "name": config["name"],
        "mark": mark,
        "command": TRAIN,
        "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
        "threads": how.threads,
    }


@contextmanager
def _every_end_is_ctrl_c() -> Iterator[None]:
    """Whatever ends this process is to end the runs it started: the launcher is in a session of its own."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
