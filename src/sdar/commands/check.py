"""``sdar check environment=NAME``: does an environment follow the protocol?"""

from __future__ import annotations

from collections.abc import Sequence

from sdar.config.command_line import CommandLine, only, parse_command_line
from sdar.config.plugins import allowing
from sdar.errors import command
from sdar.output.printable import printable

_HELP = """\
usage: sdar check [environment=NAME] [environment.SETTING=VALUE ...] [--config-dir DIR] [--allow PACKAGE]

Plays an environment and reports violations of the protocol in docs/environments.md. Exit code 0: there are none; 1:
there is one.
"""
_ALLOWED = ("environment", "search_engine")


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    line = parse_command_line(arguments)
    if line.help:
        print(_HELP, end="")
        return 0
    only(line, "sdar check", "--config-dir", "--config-name")
    with allowing(line.allow):
        return _check(line)


def _check(line: CommandLine) -> int:
    from sdar.environments.check import EnvironmentCheckError, check_env
    from sdar.run.parts import build_part, compose_parts

    config = compose_parts(line.overrides, _ALLOWED, config_dir=line.config_dir, config_name=line.config_name)
    environment = build_part(config, "environment")
    try:
        report = check_env(environment)
    except EnvironmentCheckError as error:
        print(printable(f"{error.name}: {error}"))
        return 1
    print(
        f"{environment.name} keeps to the protocol: {report.tasks} tasks played, {report.steps} steps, {report.ends} "
        f"ends seen, {report.experts} won by the expert"
    )
    return 0
