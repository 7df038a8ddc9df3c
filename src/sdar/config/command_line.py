"""The words of the command line: options, overrides, help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sdar.config.plugins import given
from sdar.config.sources import groups
from sdar.errors import UserError


@dataclass(frozen=True)
class CommandLine:
    """A command line that was understood.

    ``overrides``    settings as name=value
    ``show``         print the composed configuration and stop
    ``resolve``      print it with interpolations replaced
    ``multirun``     one run per combination of values
    ``help``         print the help and stop
    ``config_dir``   a folder of the user's own configuration files
    ``allow``        packages of the user's whose objects may be named
    ``config_name``  the file to begin with
    """

    overrides: tuple[str, ...]
    show: bool = False
    resolve: bool = False
    multirun: bool = False
    help: bool = False
    config_dir: str | None = None
    config_name: str = "train"
    allow: tuple[str, ...] = ()


_REFUSED = {
    "--config-path": "use --config-dir FOLDER, whose files are found with ours",
    "-cp": "use --config-dir FOLDER, whose files are found with ours",
    "--package": "use --cfg job and read the part of the output",
    "-p": "use --cfg job and read the part of the output",
    "--info": "use --cfg job",
    "-i": "use --cfg job",
    "--run": "leave it out: a single run is the default",
    "-r": "leave it out: a single run is the default",
    "--experimental-rerun": "give the run's settings again, or continue it with ckpt_path=PATH",
    "--shell-completion": "use --help, which lists groups and options",
    "-sc": "use --help, which lists groups and options",
    "--hydra-help": "use --help",
    "--version": "use python -c 'import sdar; print(sdar.__version__)'",
}
"""Options that a Hydra program has and this one has not."""


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are the user's."""

    def error(self, message: str) -> NoReturn:
        """Tell it in one sentence."""
        raise UserError(f"{message}; --help shows what can be given")


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Understand the arguments after the program's name.

    Raises:
        UserError: an option that does not exist.
    """
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in _REFUSED:
            raise UserError(f"{option} is not an option here; {_REFUSED[option]}")
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn", default="train")
    parser.add_argument("--allow", action="append", default=[])
    # "~name" and "+name=value" are overrides like any other; options may stand between them
    found = parser.parse_intermixed_args(list(arguments))
    return CommandLine(
        overrides=tuple(found.overrides),
        show=found.cfg is not None,
        resolve=found.resolve,
        multirun=found.multirun,
        help=found.help,
        config_dir=found.config_dir,
        config_name=found.config_name.removesuffix(".yaml"),
        allow=tuple(found.allow),
    )


def only(line: CommandLine, command: str, *taken: str) -> None:
    """UserError for options that this command does not take; ``taken``: of those that not every command takes."""
    given = {
        "--cfg": line.show,
        "--resolve": line.resolve,
        "--multirun": line.multirun,
        "--config-dir": line.config_dir is not None,
        "--config-name": line.config_name != "train",
    }
    for name, is_given in given.items():
        if is_given and name not in taken:
            raise UserError(f"{command} does not take {name}; --help shows what can be given")


def options(config_dir: str | None, config_name: str) -> list[str]:
    """The options that choose other files and allow packages, for the command line of another process."""
    found = [f"--allow={package}" for package in given()]
    found += [] if config_dir is None else [f"--config-dir={Path(config_dir).absolute()}"]
    return found if config_name == "train" else [*found, f"--config-name={config_name}"]


def help_text(program: str, folder: Path) -> str:
    """What ``--help`` prints: usage, groups with their options, and where the settings stand."""
    width = max(len(name) for name in groups(folder))
    lines = [
        f"usage: {program} [group=option ...] [setting=value ...]",
        "",
        "Trains an agent with SDAR, evaluates it, and says where the results are.",
        "",
        "Groups and their options (a file each):",
        *(f"  {name:<{width}}  {', '.join(options)}" for name, options in groups(folder).items()),
        "",
        "Examples:",
        f"  {program}                                  the default run",
        f"  {program} experiment=smoke                 two tiny iterations",
        f"  {program} algorithm=grpo seed=2            another method, another seed",
        f"  {program} gate.beta=10 trainer.max_epochs=20",
        f"  {program} ckpt_path=last                   continue the newest run with these settings",
        f"  {program} train=false ckpt_path=PATH       only evaluate a checkpoint",
        f"  {program} --multirun seed=1,2,3            one run after the other",
        "",
        "Options:",
        "  --cfg job          print the composed configuration and stop (with --resolve: values filled in)",
        "  --multirun, -m     run every combination of the values separated by commas; hydra/launcher=joblib and",
        "                     hydra.launcher.* run several at a time, or on a cluster",
        "  --config-dir DIR   find configuration files of your own there, too (-cd)",
        "  --config-name NAME begin with another file than train (-cn)",
        "  --allow PACKAGE    name objects of a package of your own in _target_; may be repeated",
        "  --allow MODEL      run the code that comes with a model, with model.trust_remote_code=true",
        "  --help, -h         this text",
        "",
        f"The settings are described in {folder}",
    ]
    return "\n".join(lines)
