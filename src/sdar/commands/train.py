"""``sdar train``: compose -> validate -> build -> fit -> evaluate -> say where to look."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdar.config.command_line import CommandLine, help_text, options, parse_command_line
from sdar.config.plugins import allowing
from sdar.config.sources import config_folder
from sdar.errors import UserError, command, run_command
from sdar.processes import cores, is_first_process, launched_from_outside, wait_passively
from sdar.run.signals import StopSignals

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sdar.run.settings import RunSettings

_FOLDER_VARIABLE = "SDAR_RUN_DIR"
"""Lets processes spawned by a strategy find their run."""

_OUTPUT_FOLDERS = {"save_dir", "dirpath", "directory"}
"""What loggers and callbacks, Lightning's and ours, call the folder they write to."""


def cli() -> None:
    """The console script ``sdar-train``, and ``train.py``."""
    run_command(main)


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code: 0, or 2 for a mistake of the user, told in one sentence."""
    wait_passively()
    collects = gc.isenabled()
    gc.disable()  # a refusal takes half a second, of which looking for garbage would be a tenth
    try:
        line = parse_command_line(arguments)
        with allowing(line.allow):
            return _run(line, arguments)
    finally:
        if collects:
            gc.freeze()
            gc.unfreeze()  # what was made is old now, without a search
            gc.enable()


def _run(line: CommandLine, arguments: Sequence[str]) -> int:
    if line.help:
        print(help_text(_program(), config_folder()))
    elif line.multirun:
        return _multirun(line)
    elif line.show:
        config = _composed(line, line.overrides)
        _show(config, line.resolve)
        _remark(config)
    else:
        with StopSignals().held() as signals:
            if not is_first_process():
                signals.farewell = lambda _: ""  # the first one speaks
            if _is_started_by_strategy():
                _join_run(signals)
            else:
                now = datetime.now()
                config = _composed(line, line.overrides)
                with _folder_taken(config, now):
                    settings = _settings(config, now)
                    _check_nodes(settings.config)
                    _lead(settings, now, arguments, signals)
    return 0


def _program() -> str:
    name = Path(sys.argv[0]).name
    return name if name in ("train.py", "sdar-train") else "sdar train"


def _started_by() -> list[str]:
    """The program, and what started it, as one types it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == "sdar.commands.train":
        program = ["python", "-m", spec.name]
    else:
        program = ["python", sys.argv[0]] if _program() == "train.py" else _program().split()
    launched = launched_from_outside()
    if launched is None or launched.world_size == 1:
        return program
    return ["torchrun", "...", sys.argv[0]] if "TORCHELASTIC_RUN_ID" in os.environ else ["srun", "...", *program]


def _composed(line: CommandLine, overrides: Sequence[str]) -> DictConfig:
    from sdar.config.compose import compose_config

    return compose_config(overrides, config_dir=line.config_dir, config_name=line.config_name)


def _show(config: DictConfig, resolve: bool) -> None:
    """Print a composed configuration."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        print(OmegaConf.to_yaml(config, resolve=resolve), end="")
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: the value cannot be resolved: {str(error).splitlines()[0]}") from error


def _remark(config: DictConfig) -> None:
    """Say on the side what a run with the configuration that was shown would be refused for."""
    from sdar.run.validate import UNSET, validate

    config["run_dir"] = config.get("run_dir") or UNSET
    try:
        validate(config)
    except UserError as error:
        print(f"a run would be refused: {error}", file=sys.stderr)


def _settings(config: DictConfig, now: datetime) -> RunSettings:
    """The validated settings of a new run, its folder chosen (and not made here).

    Where several processes were started from outside, the first one's folder is the run's: the others write nothing,
    and the trainer tells them where checkpoints go.
    """
    from sdar.run.folder import RUN_FILE, check_writable, new_run_folder
    from sdar.run.validate import validate

    if config.get("run_dir") is None:
        # So that a wrong name or folder is told as such before a folder is chosen.
        logs_dir = _text(config, "logs_dir")
        check_writable("logs_dir", logs_dir)
        config["run_dir"] = str(new_run_folder(logs_dir, _text(config, "name"), now))
    settings = validate(config)
    _check_machine(settings.config)
    if is_first_process() and (Path(settings.config["run_dir"]) / RUN_FILE).exists():
        raise UserError(f"run_dir={settings.config['run_dir']} holds a run already; set another folder")
    return settings


@contextmanager
def _folder_taken(config: DictConfig, now: datetime) -> Iterator[None]:
    """Make the folder of a new run before any work, so that no other run gets it; one that is refused leaves none."""
    from sdar.run.folder import check_writable, make_run_folder
    from sdar.run.rules.names import check_name

    if config.get("run_dir") is not None or not is_first_process():
        yield
        return
    logs_dir, name = _text(config, "logs_dir"), _text(config, "name")
    check_name(name)
    check_writable("logs_dir", logs_dir)
    with _left_clean(Path(logs_dir) / name):
        try:
            folder = make_run_folder(logs_dir, name, now)
        except OSError as error:
            raise UserError(f"logs_dir={logs_dir}: no folder can be made there ({error.strerror or error})") from error
        config["run_dir"] = str(folder)
        with _left_clean(folder, made=True):
            yield


@contextmanager
def _left_clean(folder: Path, *, made: bool = False) -> Iterator[None]:
    """Remove in the end what is empty of a folder and its parents and was not there before (or was just ``made``)."""
    new = [folder] if made else [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            for place in new:
                place.rmdir()


def _text(config: DictConfig, name: str) -> str:
    from omegaconf.errors import OmegaConfBaseException

    try:
        return str(config[name])
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: the value cannot be resolved: {str(error).splitlines()[0]}") from error


def _check_machine(config: Mapping[str, Any]) -> None:
    """Refuse threads that there are no cores for, and folders that cannot be written or that are another run's."""
    from sdar.run.folder import check_free_checkpoints, check_writable

    threads = config["threads"]
    if threads is not None and threads > cores():
        raise UserError(f"threads={threads}, but this process may use only {cores()} cores")
    check_writable("run_dir", config["run_dir"])
    check_free_checkpoints(config)
    vllm = config["rollout"]["vllm"]
    if vllm["url"] is not None and vllm["weights_folder"] is not None:
        check_writable("rollout.vllm.weights_folder", vllm["weights_folder"])
    for group in ("logger", "callbacks"):
        for name, node in config[group].items():
            for folder in _OUTPUT_FOLDERS & (node or {}).keys():
                if node[folder] is not None:  # null: the run's own folder
                    check_writable(f"{group}.{name}.{folder}", node[folder])


def _check_nodes(config: Mapping[str, Any]) -> None:
    """Refuse several nodes where no launcher has started this process, and nothing says where the others are."""
    nodes = config["trainer"].get("num_nodes", 1)
    if nodes > 1 and launched_from_outside() is None and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"trainer.num_nodes={nodes}, but this process was started alone; start it on every node with torchrun or "
            "srun (docs/scaling.md), or set trainer.num_nodes=1"
        )


def _multirun(line: CommandLine) -> int:
    """Every combination in a process of its own, by Hydra's launchers; all are validated before the first starts."""
    from sdar.compare.launching import choose_launcher, job_record, last_line, launch
    from sdar.config.compose import sweep
    from sdar.run.folder import check_own_checkpoints, make_run_folder

    own = [text for text in line.overrides if not text.lstrip("+").startswith(("hydra/launcher=", "hydra.launcher."))]
    chosen = [text for text in line.overrides if text not in own]
    name = next((text.partition("=")[2] for text in chosen if text.lstrip("+").startswith("hydra/")), None)
    combinations = sweep(own)
    composed = [_composed(line, overrides) for overrides in combinations]
    if line.show:
        for overrides, config in zip(combinations, composed, strict=True):
            print(f"--- # {' '.join(overrides)}")
            _show(config, line.resolve)
            _remark(config)
        return 0
    run_dirs = [None if config.get("run_dir") is None else _text(config, "run_dir") for config in composed]
    for run_dir in filter(None, run_dirs):
        if run_dirs.count(run_dir) > 1:
            raise UserError(f"run_dir must be another folder for every run of a sweep, got {run_dir} more than once")
    configs = [_settings(config, datetime.now()).config for config in composed]
    if len(configs) > 1:
        for each in configs:
            check_own_checkpoints(each)
    settings = [text for text in chosen if not text.lstrip("+").startswith("hydra/")]
    how = choose_launcher(name, settings, None, max((c["threads"] for c in configs if c["threads"]), default=None))
    jobs = [
        job_record(
            " ".join(overrides) or f"run{number}",
            [*options(line.config_dir, line.config_name), *overrides],
            config,
            how,
            mark=f"run{number}",
            run_dir=run_dir,
        )
        for number, (overrides, config, run_dir) in enumerate(zip(combinations, configs, run_dirs, strict=True), 1)
    ]
    gc.enable()
    folder = make_run_folder(configs[0]["logs_dir"], "multirun", datetime.now())
    states = launch(folder, jobs, how, resumes=False)
    for number, state in states.items():
        print(f"{jobs[number]['label']}: {last_line(Path(state['log']))}", flush=True)
    return max([abs(int(state.get("code", 1))) for state in states.values()] + [int(len(states) < len(jobs))])


def _is_started_by_strategy() -> bool:
    return "LOCAL_RANK" in os.environ and _FOLDER_VARIABLE in os.environ


def _join_run(signals: StopSignals) -> None:
    """Train in a run that another process leads: its folder says which."""
    from omegaconf import OmegaConf

    from sdar.run.folder import RUN_FILE, read_config, read_record
    from sdar.run.session import Session
    from sdar.run.validate import validate

    gc.enable()
    _quiet()
    folder = Path(os.environ[_FOLDER_VARIABLE])
    # What is continued is decided once: by now, a newer run may have the same settings.
    checkpoint = (read_record(folder / RUN_FILE) or {}).get("resumed_from")
    settings = validate(OmegaConf.create({**read_config(folder), "ckpt_path": checkpoint}))
    Session(settings, leader=False, signals=signals, command=[*_started_by(), *sys.argv[1:]]).run()


def _lead(settings: RunSettings, started: datetime, arguments: Sequence[str], signals: StopSignals) -> None:
    """One run. Heavy packages are imported here, so that --help and most mistakes answer at once."""
    from sdar.run.folder import occupied, write_run_folder
    from sdar.run.session import Session

    gc.enable()
    _quiet()
    words = [*_started_by(), *arguments]
    if not is_first_process():
        Session(settings, leader=False, signals=signals, command=words).run()
        return
    folder = Path(settings.config["run_dir"])
    with _left_clean(folder), occupied(folder) as ours:
        if not ours:
            raise UserError(f"run_dir={folder} is taken by another run; wait for its end, or set another folder")
        session = Session(settings, leader=True, signals=signals, command=words)
        write_run_folder(
            session.folder,
            settings.config,
            started=started,
            command=["sdar", "train", *arguments],
            resumed_from=session.checkpoint,
            changed=session.changed,
        )
        os.environ[_FOLDER_VARIABLE] = str(session.folder)
        try:
            session.run()
        finally:
            del os.environ[_FOLDER_VARIABLE]


def _quiet() -> None:
    """Keep remarks of libraries off the screen that a user of this program can do nothing about."""
    before = threading.excepthook
    # A thread that writes a log tells the one that gave it the words, too; see sdar.learning.logs.
    threading.excepthook = lambda said: None if isinstance(said.exc_value, OSError) else before(said)
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
