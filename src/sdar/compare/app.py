"""``python -m sdar.compare``: compose -> validate -> reuse -> run what is missing -> compare."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdar.compare import launcher
from sdar.compare.job import PLAN_FILE, STATE_FOLDER
from sdar.compare.plan import Job, Plan, check_comparable, make_plan
from sdar.compare.progress import Progress, last_line
from sdar.compare.records import FinishedRun, Found, find_runs
from sdar.compare.report import as_record, report
from sdar.compare.request import BASIC, JOBLIB, Request, read_request
from sdar.compare.terms import check_present, present_terms
from sdar.errors import UserError
from sdar.processes import cores
from sdar.run.folder import git_revision, occupied, versions, write_record

USER_ERROR = 2
SOME_FAILED = 1
INTERRUPTED = 130

RECORD_FILE = "comparison.json"
REPORT_FILE = "comparison.md"

TRAIN = [sys.executable, "-u", "-m", "sdar.commands.train"]
"""The program that a job runs, without its settings."""

_HELP = """\
usage: python -m sdar.compare SETTING=A,B[,...] [seed=0..4] [setting=value ...] [jobs=N]

Trains every method with every seed, each run in a process of its own, and compares the methods pair by pair.
Runs that are finished are reused, those that were stopped, or have fewer iterations, are continued, those that failed
are tried again.

  algorithm=grpo,sdar seed=0..4             two methods, five pairs; the first is the baseline
  gate.beta=1,5,25 seed=0..9 jobs=2         three values of a setting, two runs at a time (extra sdar[compare])
  algorithm=grpo,sdar seed=0..9 hydra/launcher=submitit_slurm hydra.launcher.partition=NAME
                                            on a Slurm cluster (extra sdar[slurm])

Settings are those of train.py; logs_dir is where runs are looked for and written.
What the table means, and when to believe it: docs/comparing.md
"""


def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code.

    0: all runs are there and were compared; 1: some failed; 2: a mistake of the user, told in one sentence; 130: it was
    stopped.
    """
    if {"--help", "-h"} & set(arguments) or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    try:
        options = [word for word in arguments if word.startswith("-") and word not in ("--multirun", "-m")]
        if options:
            raise UserError(f"{options[0]}: there is no such option; allowed are name=value settings and --help")
        return _compare(read_request([word for word in arguments if not word.startswith("-")]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR


def _compare(request: Request) -> int:
    plan = make_plan(request)
    how = choose_launcher(request, plan.jobs[0].settings["threads"])
    with occupied(plan.folder) as ours:
        if not ours:
            raise UserError(f"this comparison is running already, in {plan.folder}: wait until it has ended")
        return _compare_in_folder(plan, how)


def _compare_in_folder(plan: Plan, how: Launcher) -> int:
    found = look(plan)
    finished = _finished(plan, found)
    check_comparable({job.label: run for job, run in finished.items()})
    missing = [job for job in plan.jobs if job not in finished]
    for job in missing:
        if (busy := found[job.identity].running) is not None:
            raise UserError(f"{job.label} is running now, in {busy}: wait until it has ended, or end it")
    if finished and missing:
        _check_still_the_same(plan, finished)
    print(f"comparison: {len(plan.methods)} methods x {len(plan.seeds)} seeds, {plan.folder}", flush=True)
    for job, run in finished.items():
        print(f"{job.label}: reused, {run.folder}", flush=True)
    failed: dict[Job, Mapping[str, Any]] = {}
    if missing:
        failed = run_jobs(plan, missing, found, how)
        finished = _finished(plan, look(plan))
        check_comparable({job.label: run for job, run in finished.items()})
    for job, state in failed.items():
        log = Path(state["log"])
        print(f"{job.label}: FAILED with exit code {state.get('code')}: {last_line(log)} (see {log})", flush=True)
    if finished:
        conclude(plan, finished)
    if len(finished) < len(plan.jobs):
        lacking = len(plan.jobs) - len(finished)
        print(f"{lacking} of {len(plan.jobs)} runs are not finished; the same command tries them again", flush=True)
        return SOME_FAILED
    return 0


def _check_still_the_same(plan: Plan, finished: Mapping[Job, FinishedRun]) -> None:
    """Refuse to make runs that could not be compared with the finished ones, which share their terms."""
    try:
        now = present_terms(plan.jobs[0].settings)
    except UserError as error:  # runs may be made where the files are: on a cluster's nodes
        print(f"whether the panel is still that of the finished runs cannot be seen here: {error}", flush=True)
        return
    job, run = next(iter(finished.items()))
    check_present(job.label, run, now)


class Launcher:
    """How jobs are launched.

    ``name``       of the Hydra launcher
    ``overrides``  its settings
    ``at_a_time``  runs side by side; None: the cluster decides
    ``threads``    CPU threads of each run; None: as many as there are cores
    """

    def __init__(self, name: str, overrides: Sequence[str], at_a_time: int | None, threads: int | None) -> None:
        self.name = name
        self.overrides = tuple(overrides)
        self.at_a_time = at_a_time
        self.threads = threads


def choose_launcher(request: Request, threads: int | None) -> Launcher:
    """The launcher that was asked for, checked, with threads so that runs side by side do not fight for the cores.

    Raises:
        UserError: it is not installed, its settings are wrong, or jobs x threads exceeds the cores.
    """
    name = request.launcher or (BASIC if request.jobs in (None, 1) else JOBLIB)
    overrides = list(request.launcher_overrides)
    if name == BASIC:
        if request.jobs not in (None, 1):
            raise UserError(f"jobs={request.jobs}: hydra/launcher=basic runs one at a time; allowed is jobs=1")
        at_a_time: int | None = 1
    elif name == JOBLIB:
        if any(text.startswith("hydra.launcher.n_jobs") for text in overrides):
            raise UserError("hydra.launcher.n_jobs is set by jobs=N here, which also divides the cores among the runs")
        at_a_time = request.jobs or cores()
        overrides.append(f"hydra.launcher.n_jobs={at_a_time}")
        # Runs take long and differ in length: a worker takes the next as soon as it is free.
        overrides += ["hydra.launcher.batch_size=1", "hydra.launcher.pre_dispatch=n_jobs"]
    else:
        if request.jobs is not None:
            raise UserError(f"jobs={request.jobs}: allowed with hydra/launcher=joblib; {name} has settings of its own")
        at_a_time = None
    launcher.check_launcher(name, overrides)
    if at_a_time is not None and at_a_time > 1:
        if threads is None:
            threads = max(1, cores() // at_a_time)
        if at_a_time * threads > cores():
            raise UserError(
                f"jobs={at_a_time} with threads={threads}: {at_a_time * threads} threads would share {cores()} cores, "
                f"which slows all runs down; allowed is jobs x threads up to {cores()}"
            )
    return Launcher(name, overrides, at_a_time, threads)


def look(plan: Plan) -> dict[str, Found]:
    """What there is for each run of the plan, by identity."""
    return find_runs(plan.logs_dir, [job.settings for job in plan.jobs])


def _finished(plan: Plan, found: Mapping[str, Found]) -> dict[Job, FinishedRun]:
    runs = {job: found[job.identity].finished for job in plan.jobs}
    return {job: run for job, run in runs.items() if run is not None}


def run_jobs(
    plan: Plan, missing: Sequence[Job], found: Mapping[str, Found], how: Launcher
) -> dict[Job, Mapping[str, Any]]:
    """Run what is missing; returns the state of those that failed.

    Raises:
        UserError: the launcher itself gave up.
    """
    folder = plan.folder
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    for old in (folder / STATE_FOLDER).glob("*.json"):
        old.unlink()
    for identity in {job.identity for job in missing}:
        for damaged in found[identity].unreadable:
            print(f"{damaged}: its results cannot be read, so the run is made again", flush=True)
    jobs = [_as_record(job, found[job.identity].checkpoint, how.threads) for job in missing]
    write_record(folder / PLAN_FILE, {"launcher": how.name, "settings": list(how.overrides), "jobs": jobs})
    threads = "" if how.threads is None else f", {how.threads} threads each"
    side = "as the launcher decides" if how.at_a_time is None else f"{how.at_a_time} at a time"
    print(f"{len(missing)} runs to make, {side}{threads} (hydra/launcher={how.name})", flush=True)
    progress = Progress(folder, {n: job.label for n, job in enumerate(missing)}, at_a_time=how.at_a_time)
    process = launcher.start(folder, range(len(missing)), how.name, how.overrides)
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
            f"\nstopped; {done} of {len(missing)} runs were finished and are kept. The same command goes on: it reuses "
            "those and continues the others from their last checkpoint."
            + ("" if how.at_a_time is not None else " Jobs that a cluster has accepted go on there."),
            flush=True,
        )
        raise SystemExit(INTERRUPTED) from None
    states = progress.states()
    if process.returncode != 0 and len(states) < len(missing):
        log = folder / launcher.LOG_FILE
        raise UserError(f"hydra/launcher={how.name} gave up: {last_line(log)} (see {log})")
    return {job: states[n] for n, job in enumerate(missing) if n in states and states[n]["state"] != "done"}


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


def _as_record(job: Job, checkpoint: Path | None, threads: int | None) -> dict[str, Any]:
    """What a job needs to know, in plain values: it may be read on another machine."""
    settings = job.settings
    return {
        "label": job.label,
        "overrides": list(job.overrides),
        "logs_dir": str(Path(settings["logs_dir"]).absolute()),
        "name": settings["name"],
        "mark": f"seed{job.seed}-{job.identity[:6]}",
        "identity": job.identity,
        "command": TRAIN,
        "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
        "threads": threads,
    }


def conclude(plan: Plan, finished: Mapping[Job, FinishedRun]) -> None:
    """Print the tables and write them, with the record, into the comparison's folder."""
    runs = {(job.method, job.seed): run for job, run in finished.items()}
    text = report(runs, plan.methods, plan.seeds)
    print(f"\n{text}", flush=True)
    record = {
        "command": ["python", "-m", "sdar.compare", *sys.argv[1:]],
        "git": git_revision(),
        "versions": versions(),
        **as_record(runs, plan.methods, plan.seeds),
    }
    write_record(plan.folder / RECORD_FILE, record)
    (plan.folder / REPORT_FILE).write_text(f"# {' vs '.join(plan.methods)}\n\n{text}", encoding="utf-8")
    print(f"table: {plan.folder / REPORT_FILE}\nfigures: {plan.folder / RECORD_FILE}", flush=True)
