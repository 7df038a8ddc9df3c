"""One run of a comparison, in a process of its own: what a launcher is given to do, wherever it does it.

Imports little: a launcher starts a Python for every job, and the work is done in another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sdar.run.folder import new_run_folder, write_record

PLAN_FILE = "plan.json"
STATE_FOLDER = "state"
OUTPUT_FILE = "output.log"
_REFUSED = 2


def run_job(config: DictConfig) -> int:
    """The task function of the launcher: run job number ``config.job`` of the plan in ``config.folder``.

    Never raises for a run that fails: the others go on. Returns the exit code of the run.
    """
    folder = Path(config.folder)
    job = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))["jobs"][int(config.job)]
    state_file = folder / STATE_FOLDER / f"{int(config.job)}.json"
    started = time.time()
    checkpoint = job["checkpoint"]
    code = -1
    # A checkpoint that is refused (damaged, of other weights, nothing left to train) is no reason to give up.
    for resume in [f"ckpt_path={checkpoint}", None] if checkpoint else [None]:
        run_dir = new_run_folder(job["logs_dir"], job["name"], datetime.now(), job["mark"])
        run_dir.mkdir(parents=True)
        state: dict[str, Any] = {
            "state": "running",
            "run_dir": str(run_dir),
            "log": str(run_dir / OUTPUT_FILE),
            "resumed": resume is not None,
            "started": started,
        }
        write_record(state_file, state)
        overrides = [*job["arguments"], f"run_dir={run_dir}", *([resume] if resume else [])]
        code = _train(job["command"], overrides, run_dir / OUTPUT_FILE, job["threads"])
        if code != _REFUSED:
            break
    ended = {"state": "done" if code == 0 else "failed", "code": code, "ended": time.time()}
    write_record(state_file, state | ended)
    return code


def _train(command: list[str], overrides: list[str], log: Path, threads: int | None) -> int:
    environment = dict(os.environ)
    if threads is None:
        # What the launcher's own workers were told is not meant for the run.
        for name in _THREADS:
            environment.pop(name, None)
    else:
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


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
