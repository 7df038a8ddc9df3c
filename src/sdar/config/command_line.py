"""The words of the command line: options, overrides, help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdar.config.sources import groups
from sdar.errors import UserError


@dataclass(frozen=True)
class CommandLine:
    """A command line that was understood.

    ``overrides``  settings as name=value
    ``show``       print the composed configuration and stop
    ``resolve``    print it with interpolations replaced
    ``multirun``   one process per combination of values, one after the other
    ``help``       print the help and stop
    """

    overrides: tuple[str, ...]
    show: bool = False
    resolve: bool = False
    multirun: bool = False
    help: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}; allowed are name=value settings, --help, --cfg job, --resolve and --multirun")


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Understand the arguments after the program's name.

    Raises:
        UserError: an option that does not exist.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    # "~name" and "+name=value" are overrides like any other; options may stand between them
    found = parser.parse_intermixed_args(list(arguments))
    return CommandLine(
        overrides=tuple(found.overrides),
        show=found.cfg is not None,
        resolve=found.resolve,
        multirun=found.multirun,
        help=found.help,
    )


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
        "  --cfg job       print the composed configuration and stop (with --resolve: values filled in)",
        "  --multirun, -m  run every combination of the values separated by commas",
        "  --help, -h      this text",
        "",
        f"The settings are described in {folder}",
    ]
    return "\n".join(lines)
