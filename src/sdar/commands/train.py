"""The entry point: compose -> validate -> build -> fit -> evaluate -> say where to look."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.command_line import help_text, parse_command_line
from sdar.config.compose import compose_config, sweep
from sdar.config.sources import config_folder
from sdar.errors import UserError
from sdar.processes import cores, is_first_process
from sdar.run.folder import RUN_FILE, check_writable, new_run_folder, occupied, read_config, write_run_folder
from sdar.run.rules.validate import validate

USER_ERROR = 2
"""Exit code of a mistake of the user."""

_FOLDER_VARIABLE = "SDAR_RUN_DIR"
"""Tells the processes that a strategy starts which run they belong to."""

_OUTPUT_FOLDERS = {"save_dir", "dirpath", "directory"}
"""What loggers and callbacks, Lightning's and ours, call the folder they write to."""


def cli() -> None:
    """The console script ``sdar-train``."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    try:
        line = parse_command_line(arguments)
        folder = config_folder()
        if line.help:
            print(help_text(Path(sys.argv[0]).name or "sdar-train", folder))
        elif line.multirun:
            return _multirun(sweep(line.overrides), folder)
        elif line.show:
            config = compose_config(line.overrides, folder)
            _show(config, line.resolve)
            _remark(config)
        elif _is_started_by_strategy():
            _run(read_config(Path(os.environ[_FOLDER_VARIABLE])), datetime.now(), arguments)
        else:
            now = datetime.now()
            _run(_settings(compose_config(line.overrides, folder), now), now, arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


def _show(config: DictConfig, resolve: bool) -> None:
    """Print a composed configuration."""
    try:
        print(OmegaConf.to_yaml(config, resolve=resolve), end="")
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: the value cannot be resolved: {str(error).splitlines()[0]}") from error


def _remark(config: DictConfig) -> None:
    """Say on the side what a run with the configuration that was shown would be refused for."""
    config["run_dir"] = config.get("run_dir") or "unset"
    try:
        validate(config)
    except UserError as error:
        print(f"a run would be refused: {error}", file=sys.stderr)


def _settings(config: DictConfig, now: datetime) -> dict[str, Any]:
    """The validated settings of a new run, its folder chosen (and not yet made).

    Where several processes were started from outside, the first one's folder is the run's: the others write nothing,
    and the trainer tells them where checkpoints go.
    """
    if config.get("run_dir") is None:
        # Validated first, so that a wrong name or folder is told as such; then again with the folder in place.
        config["run_dir"] = "unset"
        settings = validate(config)
        check_writable("logs_dir", settings["logs_dir"])
        config["run_dir"] = str(new_run_folder(settings["logs_dir"], settings["name"], now))
    settings = validate(config)
    _check_machine(settings)
    if is_first_process() and (Path(settings["run_dir"]) / RUN_FILE).exists():
        raise UserError(f"run_dir={settings['run_dir']}: it holds a run already; allowed is a folder that does not")
    return settings


def _check_machine(settings: Mapping[str, Any]) -> None:
    """Refuse threads that there are no cores for, and folders in which nothing can be written."""
    threads = settings["threads"]
    if threads is not None and threads > cores():
        raise UserError(f"threads={threads}: this process may use {cores()} cores; allowed are 1 to {cores()}, or null")
    check_writable("run_dir", settings["run_dir"])
    for group in ("logger", "callbacks"):
        for name, node in settings[group].items():
            for folder in _OUTPUT_FOLDERS & (node or {}).keys():
                check_writable(f"{group}.{name}.{folder}", node[folder])


def _multirun(combinations: Sequence[Sequence[str]], folder: Path) -> int:
    """Every combination in a process of its own, one after the other; all are validated before the first starts."""
    for overrides in combinations:
        _settings(compose_config(overrides, folder), datetime.now())
    worst = 0
    for number, overrides in enumerate(combinations, start=1):
        print(f"run {number} of {len(combinations)}: {' '.join(overrides)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "sdar.commands.train", *overrides], check=False)
        worst = max(worst, abs(done.returncode))
    return worst


def _is_started_by_strategy() -> bool:
    return "LOCAL_RANK" in os.environ and _FOLDER_VARIABLE in os.environ


def _run(settings: dict[str, Any], started: datetime, arguments: Sequence[str]) -> None:
    """One run. Heavy packages are imported here, so that --help and most mistakes answer at once."""
    from sdar.run.session import Session

    _quiet()
    if _is_started_by_strategy() or not is_first_process():
        Session(settings, leader=False).run()
        return
    session = Session(settings, leader=True)
    with occupied(session.folder) as ours:
        if not ours:
            raise UserError(
                f"run_dir={settings['run_dir']}: another run, started in the same second, has this folder; allowed is "
                "one of its own (start again, or give run_dir=PATH)"
            )
        write_run_folder(
            session.folder,
            settings,
            started=started,
            command=["sdar-train", *arguments],
            resumed_from=session.checkpoint,
        )
        os.environ[_FOLDER_VARIABLE] = settings["run_dir"]
        try:
            session.run()
        finally:
            del os.environ[_FOLDER_VARIABLE]


def _quiet() -> None:
    """Keep remarks of libraries off the screen that a user of this program can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        r".*does not have many workers.*",
        r"The dirpath has changed from .*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    cli()
