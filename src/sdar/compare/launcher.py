"""Hydra's multirun over the jobs of a plan, in a process of its own: its sweeper, and the launcher that was asked for.

``python -m sdar.compare.launcher --multirun hydra/launcher=joblib folder=FOLDER job=0,1,2``
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import hydra
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from sdar.compare.job import run_job
from sdar.errors import UserError

CONFIG = "sdar_compare_job"
LOG_FILE = "launcher.log"
_EXTRAS = {"joblib": "compare", "submitit_slurm": "slurm", "submitit_local": "slurm"}


def register() -> None:
    """Tell Hydra of the configuration of a job: which folder, which number."""
    ConfigStore.instance().store(
        CONFIG,
        {
            "defaults": [
                {"override hydra/hydra_logging": "none"},
                {"override hydra/job_logging": "none"},
                "_self_",
            ],
            "folder": "???",
            "job": "???",
            "hydra": {"output_subdir": None, "sweep": {"dir": "${folder}/launcher", "subdir": "${hydra:job.num}"}},
        },
    )


def check_launcher(name: str, overrides: Sequence[str]) -> None:
    """Refuse a launcher that is not installed, or settings that it does not have.

    Raises:
        UserError: naming the extra that brings the launcher, or the launchers there are.
    """
    Plugins.instance()  # imports what is installed; each registers its launcher
    known = sorted(file.removesuffix(".yaml") for file in ConfigStore.instance().list("hydra/launcher"))
    if name not in known:
        if name in _EXTRAS:
            raise UserError(
                f"hydra/launcher={name} is not installed; pip install 'sdar[{_EXTRAS[name]}]' adds it; allowed as it "
                f"is: {', '.join(known)}, with one run after another (jobs=1)"
            )
        allowed = ", ".join(sorted({*known, *_EXTRAS}))
        raise UserError(f"hydra/launcher={name}: there is no such launcher; allowed is one of {allowed}")
    register()
    try:
        with initialize(version_base="1.3", config_path=None):
            compose(CONFIG, overrides=[f"hydra/launcher={name}", *overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"the settings {' '.join(overrides)} do not fit hydra/launcher={name}: {first}") from error


def start(folder: Path, numbers: Sequence[int], name: str, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the launcher for these jobs of the plan in ``folder``; its words go to ``launcher.log``."""
    command = [sys.executable, "-m", "sdar.compare.launcher", "--multirun", f"hydra/launcher={name}", *overrides]
    command += [f"folder={_quoted(folder)}", f"job={','.join(map(str, numbers))}"]
    output: IO[bytes]
    with (folder / LOG_FILE).open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the launcher with all it started.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a launcher and the runs it started on this machine."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:  # pragma: no cover - only where there are no process groups
                process.terminate()
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue


def _quoted(folder: Path) -> str:
    text = str(folder.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


if __name__ == "__main__":
    register()
    hydra.main(version_base="1.3", config_path=None, config_name=CONFIG)(run_job)()
