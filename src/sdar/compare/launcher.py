"""Hydra's multirun over the jobs of a plan, in a process of its own, by one of Hydra's launchers.

``python -m sdar.compare.launcher --multirun hydra/launcher=joblib folder=FOLDER job=0,1,2``
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

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
    """Register the configuration of a job with Hydra: which folder, which number."""
    ConfigStore.instance().store(
        CONFIG,
        {
            "defaults": [{"override hydra/hydra_logging": "none"}, {"override hydra/job_logging": "none"}, "_self_"],
            "folder": "???",
            "job": "???",
            "hydra": {"output_subdir": None, "sweep": {"dir": "${folder}/launcher", "subdir": "${hydra:job.num}"}},
        },
    )


def check_launcher(name: str, overrides: Sequence[str]) -> None:
    """Check that a launcher is installed and takes the settings.

    UserError names the extra that brings the launcher, the known launchers, or the wrong setting.
    """
    Plugins.instance()  # imports what is installed; each registers its launcher
    known = sorted(file.removesuffix(".yaml") for file in ConfigStore.instance().list("hydra/launcher"))
    if name not in known:
        if name in _EXTRAS:
            raise UserError(f"hydra/launcher={name} is not installed: pip install 'sdar[{_EXTRAS[name]}]'")
        raise UserError(f"hydra/launcher must be one of {', '.join(sorted({*known, *_EXTRAS}))}, got {name}")
    register()
    try:
        with initialize(version_base="1.3", config_path=None):
            compose(CONFIG, overrides=[f"hydra/launcher={name}", *overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"the settings {' '.join(overrides)} do not fit hydra/launcher={name}: {first}") from error


def start(folder: Path, numbers: Sequence[int], name: str, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the launcher for these jobs of the plan in ``folder``. Its output goes to ``launcher.log``."""
    quoted = str(folder.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "sdar.compare.launcher", "--multirun", f"hydra/launcher={name}", *overrides]
    command += [f"folder='{quoted}'", f"job={','.join(map(str, numbers))}"]
    with (folder / LOG_FILE).open("wb") as output:
        # In its own session, so that Ctrl-C reaches this process alone, which then ends the launcher and its runs.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a launcher and its runs on this machine.

    The runs have 30 s to end their iteration and save it; a second Ctrl-C ends them at once.
    """
    if not hasattr(os, "killpg"):  # pragma: no cover - only where there are no process groups
        process.terminate()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(KeyboardInterrupt):
            _wait_for_group(process, seconds=30)
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _wait_for_group(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until the process and its group have ended. The launcher dies at once, its runs end in their own time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.poll()  # an ended leader stays in its group until it is waited for
        os.killpg(process.pid, 0)  # raises ProcessLookupError once nobody is left
        time.sleep(0.05)


if __name__ == "__main__":
    register()
    hydra.main(version_base="1.3", config_path=None, config_name=CONFIG)(run_job)()
