"""One run of a sweep or a comparison, in a process of its own: what a launcher executes.

Imports little: a launcher may start a Python process per job, and the work is done in another one.
"""

from __future__ import annotations

import os
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sdar.errors import UserError
from sdar.run.folder import make_run_folder, read_record, write_record

PLAN_FILE = "plan.json"
STATE_FOLDER = "state"
OUTPUT_FILE = "output.log"
_REFUSED = 2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def run_job(config: DictConfig) -> int:
    """The task function of the launcher: run job number ``config.job`` of the plan in ``config.folder``.

    Returns the exit code of the run. A run that fails raises nothing, so that the others go on.
    """
    folder = Path(config.folder)
    plan = read_record(folder / PLAN_FILE)
    if plan is None:
        raise UserError(f"{folder / PLAN_FILE} cannot be read; the command that wrote it writes it again")
    job = plan["jobs"][int(config.job)]
    state_file = folder / STATE_FOLDER / f"{int(config.job)}.json"
    started = time.time()
    # A refused checkpoint (damaged, of other weights, nothing left to train) is no reason to give up.
    for resume in [[f"ckpt_path={job['checkpoint']}"], []] if job["checkpoint"] else [[]]:
        if job["run_dir"] is None:
            run_dir = make_run_folder(job["logs_dir"], job["name"], datetime.now(), job["mark"])
        else:
            run_dir = Path(job["run_dir"])
            run_dir.mkdir(parents=True, exist_ok=True)
        log = run_dir / OUTPUT_FILE
        state: dict[str, Any] = {
            "state": "running",
            "run_dir": str(run_dir),
            "log": str(log),
            "resumed": bool(resume),
            "started": started,
        }
        write_record(state_file, state)
        code = _train(job["command"], [*job["arguments"], f"run_dir={run_dir}", *resume], log, job["threads"])
        if code != _REFUSED:
            break
    ended = {"state": "done" if code == 0 else "failed", "code": code, "ended": time.time()}
    write_record(state_file, state | ended)
    return code


def _train(command: list[str], overrides: list[str], log: Path, threads: int | None) -> int:
    environment = dict(os.environ)
    if threads is not None:  # runs side by side; a launcher's workers have variables of their own, not meant for runs
        overrides = [*overrides, f"threads={threads}"]
        environment |= dict.fromkeys(_THREADS, str(threads))
    with log.open("w", encoding="utf-8") as output:
        return subprocess.run(
            [*command, *overrides],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
