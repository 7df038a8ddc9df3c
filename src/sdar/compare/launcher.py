"""Hydra's multirun over the jobs of a plan, in a process of its own, by one of Hydra's launchers.

``python -m sdar.compare.launcher --multirun hydra/launcher=joblib folder=FOLDER job=0,1,2``
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.compare.job import run_job
from sdar.config.compose import parse
from sdar.config.paths import quoted
from sdar.config.words import shown
from sdar.errors import UserError

CONFIG = "sdar_compare_job"
LOG_FILE = "launcher.log"
_EXTRAS = {"joblib": "compare", "submitit_slurm": "slurm", "submitit_local": "slurm"}
_FROM_SHELL = re.compile(r"\$\{oc\.env:\w+(,[^${}:]*)?\}")
"""The resolver whose value is always a text."""


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

    Hydra builds the launcher with all objects that its settings describe, so they may describe none.

    UserError names the extra that brings the launcher, the known launchers, or the wrong setting.
    """
    Plugins.instance()  # imports what is installed; each registers its launcher
    known = sorted(file.removesuffix(".yaml") for file in ConfigStore.instance().list("hydra/launcher"))
    if name not in known:
        if name in _EXTRAS:
            raise UserError(f"hydra/launcher={name} is not installed: pip install 'sdar[{_EXTRAS[name]}]'")
        raise UserError(f"hydra/launcher must be one of {', '.join(sorted({*known, *_EXTRAS}))}, got {name}")
    parse(overrides)
    register()
    chosen = [f"hydra/launcher={name}", *overrides, "folder=folder", "job=0"]
    try:
        with initialize(version_base="1.3", config_path=None):
            node = compose(CONFIG, overrides=chosen, return_hydra_config=True).hydra.launcher
        _check_node(node, ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node, name)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"the settings {' '.join(overrides)} do not fit hydra/launcher={name}: {first}") from error


def _check_node(node: DictConfig, registered: DictConfig, name: str) -> None:
    """UserError: the launcher is another one, or a setting is unknown, describes an object or computes its value."""
    texts = OmegaConf.to_container(node, resolve=False)
    for key, value in _leaves(texts, "hydra.launcher"):
        if isinstance(value, str) and ":" in _FROM_SHELL.sub("", value).partition("${")[2]:
            raise UserError(f"{key} must be a value, ${{oc.env:NAME}} or ${{another.setting}}, got {shown(value)}")
    for settings in (texts, OmegaConf.to_container(node, resolve=True)):
        assert isinstance(settings, dict)
        if settings.get("_target_") != registered["_target_"]:
            raise UserError(f"hydra.launcher._target_ belongs to hydra/launcher={name} and cannot be set")
        if unknown := sorted(str(key) for key in settings if key not in registered):
            allowed = ", ".join(sorted(str(key) for key in registered if key != "_target_")) or "nothing"
            raise UserError(
                f"hydra.launcher.{unknown[0]}: there is no such setting; hydra/launcher={name} has {allowed}"
            )
        own = {key: value for key, value in settings.items() if key != "_target_"}
        for key, _ in _leaves(own, "hydra.launcher"):
            if re.search(r"\._\w*_(\.|$)", key):
                raise UserError(f"{key}: a setting of a launcher must be a plain value, and describe no object")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What is in a value, containers that are empty among it, with its path."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path, value
    for key, item in items:
        yield from _leaves(item, f"{path}.{key}")


def start(folder: Path, numbers: Sequence[int], name: str, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the launcher for these jobs of the plan in ``folder``. Its output goes to ``launcher.log``."""
    command = [sys.executable, "-m", "sdar.compare.launcher", "--multirun", f"hydra/launcher={name}", *overrides]
    command += [f"folder={quoted(str(folder.absolute()))}", f"job={','.join(map(str, numbers))}"]
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
