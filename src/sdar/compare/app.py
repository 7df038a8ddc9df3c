"""``sdar compare``: compose -> validate -> reuse finished runs -> run the missing ones -> compare."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdar.compare.plan import Job, Plan, make_plan
from sdar.compare.request import read_request
from sdar.config.command_line import CommandLine, parse_command_line
from sdar.config.plugins import allowing
from sdar.errors import USER_ERROR, UserError, command
from sdar.run.folder import git_revision, occupied, versions, write_record

if TYPE_CHECKING:
    from sdar.compare.comparison import Runs
    from sdar.compare.launching import Launcher
    from sdar.compare.records import FinishedRun, Found

SOME_FAILED = 1

RECORD_FILE = "comparison.json"
REPORT_FILE = "comparison.md"

_HELP = """\
usage: sdar compare SETTING=A,B[,...] [seed=0..4] [setting=value ...] [jobs=N]

Trains every method with every seed, each run in a process of its own, and compares the methods pair by pair.
Finished runs are reused. Stopped runs, and runs with fewer iterations, are continued. Failed runs are tried again.

  algorithm=grpo,sdar seed=0..4             two methods, five pairs; the first is the baseline
  gate.beta=1,5,25 seed=0..9 jobs=2         three values of a setting, two runs at a time (extra sdar[compare])
  algorithm=grpo,sdar seed=0..9 hydra/launcher=submitit_slurm hydra.launcher.partition=NAME
                                            on a Slurm cluster (extra sdar[slurm])

Settings and the options --config-dir, --config-name and --allow are those of sdar train. Runs are searched and written
under logs_dir. What the table means, and when to believe it: docs/comparing.md
"""


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code.

    0: all runs are finished and compared; 1: some failed; 2: a mistake of the user; 130: stopped.
    """
    if {"--help", "-h"} & set(arguments) or not arguments:
        print(_HELP, end="")
        return 0 if arguments else USER_ERROR
    line = parse_command_line(arguments)
    if line.show or line.resolve:
        raise UserError("--cfg and --resolve are for one run; use sdar train --cfg job")
    with allowing(line.allow):
        return _answer(line)


def _answer(line: CommandLine) -> int:
    from sdar.compare.launching import choose_launcher

    request = read_request(line.overrides, config_dir=line.config_dir, config_name=line.config_name)
    plan = make_plan(request)
    threads = plan.jobs[0].config["threads"]
    how = choose_launcher(request.launcher, request.launcher_overrides, request.jobs, threads)
    if how.at_a_time != 1 and any(job.config["rollout"]["vllm"]["url"] is not None for job in plan.jobs):
        raise UserError("rollout.vllm.url: a server plays one run at a time; set jobs=1")
    with occupied(plan.folder) as ours:
        if not ours:
            raise UserError(f"this comparison is running already, in {plan.folder}; wait until it has ended")
        return _compare(plan, how)


def _compare(plan: Plan, how: Launcher) -> int:
    from sdar.compare.launching import last_line
    from sdar.compare.records import count_older_runs

    found = look(plan)
    finished, unsound = _finished(plan, found)
    missing = [job for job in plan.jobs if job not in finished and job not in unsound]
    for job in missing:
        if (busy := found[job.identity].running) is not None:
            raise UserError(f"{job.label} is running now, in {busy}; wait until it has ended, or end it")
    if finished and missing:
        _check_terms(plan, finished)
    print(f"comparison: {len(plan.methods)} methods x {len(plan.seeds)} seeds, {plan.folder}", flush=True)
    for job, run in finished.items():
        print(f"{job.label}: reused, {run.folder}", flush=True)
    if missing and (older := count_older_runs(plan.logs_dir)):
        print(f"not reused: {older} runs of an earlier version, whose settings cannot be compared", flush=True)
    failed: dict[Job, Mapping[str, Any]] = {}
    if missing:
        failed = run_jobs(plan, missing, found, how)
        finished, unsound = _finished(plan, look(plan))
    for job, state in failed.items():
        log = Path(state["log"])
        said = last_line(log)
        failure = "" if said.startswith("stopped by ") else f"FAILED with exit code {state.get('code')}: "
        print(f"{job.label}: {failure}{said} (see {log})", flush=True)
    for told in unsound.values():
        print(f"left out: {told}", flush=True)
    if finished:
        conclude(plan, finished)
    lacking = len(plan.jobs) - len(finished) - len(unsound)
    if lacking:
        print(f"{lacking} of {len(plan.jobs)} runs are not finished; the same command tries them again", flush=True)
    return SOME_FAILED if lacking or unsound else 0


def look(plan: Plan) -> dict[str, Found]:
    """The run folders of the plan, by identity."""
    from sdar.compare.records import find_runs

    return find_runs(plan.logs_dir, [job.config for job in plan.jobs])


def _finished(plan: Plan, found: Mapping[str, Found]) -> tuple[dict[Job, FinishedRun], dict[Job, str]]:
    """The finished runs, checked for equal terms, and why others cannot be compared: episodes ended by errors."""
    from sdar.compare.terms import check_comparable, unsoundness

    runs = {job: run for job in plan.jobs if (run := found[job.identity].finished) is not None}
    unsound = {job: told for job, run in runs.items() if (told := unsoundness(job.label, run)) is not None}
    runs = {job: run for job, run in runs.items() if job not in unsound}
    check_comparable({job.label: run for job, run in runs.items()})
    return runs, unsound


def _check_terms(plan: Plan, finished: Mapping[Job, FinishedRun]) -> None:
    """Refuse to make runs that could not be compared with the finished ones, which share their terms."""
    from sdar.compare.terms import check_present, present_terms

    try:
        now = present_terms(plan.jobs[0].config)
    except UserError as error:  # on a cluster, the files may be on the nodes only
        print(f"the tasks of the finished runs cannot be checked here: {error}", flush=True)
        return
    job, run = next(iter(finished.items()))
    check_present(job.label, run, now)


def run_jobs(
    plan: Plan, missing: Sequence[Job], found: Mapping[str, Found], how: Launcher
) -> dict[Job, Mapping[str, Any]]:
    """Make the missing runs and return the states of those that failed."""
    from sdar.compare.launching import job_record, launch

    jobs: list[dict[str, Any]] = []
    for job in missing:
        there, mark = found[job.identity], f"seed{job.seed}-{job.identity[:6]}"
        for damaged in there.unreadable:
            print(f"{damaged}: its results cannot be read, so the run is made again", flush=True)
        jobs.append(job_record(job.label, job.arguments, job.config, how, mark=mark, checkpoint=there.checkpoint))
    states = launch(plan.folder, jobs, how)
    return {job: states[n] for n, job in enumerate(missing) if n in states and states[n]["state"] != "done"}


def conclude(plan: Plan, finished: Mapping[Job, FinishedRun]) -> None:
    """Print the tables, and write them and the record into the comparison's folder."""
    from sdar.compare.report import as_record, report

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
    page = _write_page(plan, runs)
    print(f"report: {page}", flush=True)


def _write_page(plan: Plan, runs: Runs) -> Path:
    """The report that can be sent, beside the table."""
    from sdar.compare.reporting.collection import Collection, group_of
    from sdar.compare.reporting.contents import contents
    from sdar.compare.reporting.drawing import can_draw
    from sdar.compare.reporting.writing import write_report

    group = group_of(plan.methods, plan.seeds, runs)
    asked = ["sdar", "compare", *sys.argv[1:]]
    return write_report(plan.folder, contents(Collection((group,)), group.name, command=asked, draw=can_draw()))
