"""``sdar compare``: compose -> validate -> reuse -> run what is missing -> compare."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdar.config.command_line import parse_command_line
from sdar.errors import USER_ERROR, UserError, command

if TYPE_CHECKING:
    from sdar.compare.launching import Launcher
    from sdar.compare.plan import Job, Plan
    from sdar.compare.records import FinishedRun, Found
    from sdar.compare.request import Request

SOME_FAILED = 1

RECORD_FILE = "comparison.json"
REPORT_FILE = "comparison.md"

_HELP = """\
usage: sdar compare SETTING=A,B[,...] [seed=0..4] [setting=value ...] [jobs=N]

Trains every method with every seed, each run in a process of its own, and compares the methods pair by pair.
Runs that are finished are reused, those that were stopped, or have fewer iterations, are continued, those that failed
are tried again.

  algorithm=grpo,sdar seed=0..4             two methods, five pairs; the first is the baseline
  gate.beta=1,5,25 seed=0..9 jobs=2         three values of a setting, two runs at a time (extra sdar[compare])
  algorithm=grpo,sdar seed=0..9 hydra/launcher=submitit_slurm hydra.launcher.partition=NAME
                                            on a Slurm cluster (extra sdar[slurm])

Settings and the options --config-dir and --config-name are those of sdar train; logs_dir is where runs are looked for
and written. What the table means, and when to believe it: docs/comparing.md
"""


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code.

    0: all runs are there and were compared; 1: some failed; 2: a mistake of the user, told in one sentence; 130: it was
    stopped.
    """
    if {"--help", "-h"} & set(arguments) or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    line = parse_command_line(arguments)
    if line.show or line.resolve:
        raise UserError("--cfg and --resolve are for one run; use sdar train --cfg job")
    from sdar.compare.request import read_request

    return _compare(read_request(line.overrides, config_dir=line.config_dir, config_name=line.config_name))


def _compare(request: Request) -> int:
    from sdar.compare.launching import choose_launcher
    from sdar.compare.plan import make_plan
    from sdar.run.folder import occupied

    plan = make_plan(request)
    threads = plan.jobs[0].config["threads"]
    how = choose_launcher(request.launcher, request.launcher_overrides, request.jobs, threads)
    with occupied(plan.folder) as ours:
        if not ours:
            raise UserError(f"this comparison is running already, in {plan.folder}: wait until it has ended")
        return _compare_in_folder(plan, how)


def _compare_in_folder(plan: Plan, how: Launcher) -> int:
    from sdar.compare.plan import check_comparable
    from sdar.compare.progress import last_line

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
    from sdar.compare.terms import check_present, present_terms

    try:
        now = present_terms(plan.jobs[0].config)
    except UserError as error:  # runs may be made where the files are: on a cluster's nodes
        print(f"whether the panel is still that of the finished runs cannot be seen here: {error}", flush=True)
        return
    job, run = next(iter(finished.items()))
    check_present(job.label, run, now)


def look(plan: Plan) -> dict[str, Found]:
    """What there is for each run of the plan, by identity."""
    from sdar.compare.records import find_runs

    return find_runs(plan.logs_dir, [job.config for job in plan.jobs])


def _finished(plan: Plan, found: Mapping[str, Found]) -> dict[Job, FinishedRun]:
    runs = {job: found[job.identity].finished for job in plan.jobs}
    return {job: run for job, run in runs.items() if run is not None}


def run_jobs(
    plan: Plan, missing: Sequence[Job], found: Mapping[str, Found], how: Launcher
) -> dict[Job, Mapping[str, Any]]:
    """Run what is missing; returns the state of those that failed."""
    from sdar.compare.launching import job_record, launch

    for identity in {job.identity for job in missing}:
        for damaged in found[identity].unreadable:
            print(f"{damaged}: its results cannot be read, so the run is made again", flush=True)
    jobs = [
        job_record(
            job.label,
            job.arguments,
            job.config,
            how,
            mark=f"seed{job.seed}-{job.identity[:6]}",
            checkpoint=found[job.identity].checkpoint,
        )
        for job in missing
    ]
    states = launch(plan.folder, jobs, how)
    return {job: states[n] for n, job in enumerate(missing) if n in states and states[n]["state"] != "done"}


def conclude(plan: Plan, finished: Mapping[Job, FinishedRun]) -> None:
    """Print the tables and write them, with the record, into the comparison's folder."""
    from sdar.compare.report import as_record, report
    from sdar.run.folder import git_revision, versions, write_record

    runs = {(job.method, job.seed): run for job, run in finished.items()}
    text = report(runs, plan.methods, plan.seeds)
    print(f"\n{text}", flush=True)
    record = {
        "command": ["sdar", "compare", *sys.argv[1:]],
        "git": git_revision(),
        "versions": versions(),
        **as_record(runs, plan.methods, plan.seeds),
    }
    write_record(plan.folder / RECORD_FILE, record)
    (plan.folder / REPORT_FILE).write_text(f"# {' vs '.join(plan.methods)}\n\n{text}", encoding="utf-8")
    print(f"table: {plan.folder / REPORT_FILE}\nfigures: {plan.folder / RECORD_FILE}", flush=True)
