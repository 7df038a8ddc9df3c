"""``sdar episodes RUN``: the recorded episodes of a run as one HTML file, or in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sdar.config.command_line import Parser
from sdar.config.paths import at_home
from sdar.errors import UserError, command, run_command

if TYPE_CHECKING:
    from sdar.look.episodes import Reading, Recorded

PAGE = "episodes.html"
OUTCOMES = ("solved", "failed", "error")


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    options = _parser().parse_intermixed_args(list(arguments))
    out = _out(options)
    from sdar.look.episodes import Reading, episodes_file

    file, reading = episodes_file(Path(at_home(options.run))), Reading()
    if options.terminal or options.show is not None:
        _tell(options, file, reading)
    else:
        _write(file, reading, out or file.parent / PAGE, browse=options.open)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sdar episodes",
        description="The recorded episodes of a run, token by token: one HTML file that needs no network.",
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run, or its episodes.jsonl")
    parser.add_argument("out", nargs="?", metavar="out=FILE", help="the page to write; RUN/episodes.html if left out")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--terminal", action="store_true", help="write no page: list the episodes here")
    parser.add_argument("--show", type=int, metavar="NO", help="the episode of this number in the list, turn by turn")
    parser.add_argument("--iteration", type=int, help="only of this iteration")
    parser.add_argument("--type", help="only tasks of this type")
    parser.add_argument("--outcome", choices=OUTCOMES, help="only these")
    parser.add_argument("--end", help="only those that ended for this reason")
    parser.add_argument("--find", metavar="TEXT", help="only those with this in one of their texts")
    return parser


def _out(options: argparse.Namespace) -> Path | None:
    if options.out is None:
        return None
    name, is_set, value = options.out.partition("=")
    if name != "out" or not is_set or not value:
        raise UserError(f"{options.out} must be out=FILE, the page to write")
    return Path(at_home(value))


def _write(file: Path, reading: Reading, out: Path, *, browse: bool) -> None:
    if out.is_dir():
        raise UserError(f"out must be a file, got {out}, a directory")
    from sdar.look.episodes import read_episodes
    from sdar.look.page import episodes_page
    from sdar.run.folder import write_whole

    title = file.absolute().parent.name
    page = episodes_page(read_episodes(file, reading), title, damaged=lambda: reading.damaged)
    if not page.episodes:
        raise UserError(_nothing(file, reading))
    write_whole(out, page.html)
    said = [f"{page.episodes:,} episodes in {out} ({len(page.html.encode()) / 1e6:.1f} MB)"]
    said += [f"{reading.damaged} damaged lines were passed over"] if reading.damaged else []
    said += [f"the oldest {page.without_figures:,} without figures of tokens"] if page.without_figures else []
    said += [f"the oldest {page.left_out:,} left out, as the page is full"] if page.left_out else []
    print("; ".join(said))
    if browse:
        import webbrowser

        webbrowser.open(out.absolute().as_uri())


def _nothing(file: Path, reading: Reading) -> str:
    found = f"{reading.damaged} damaged lines" if reading.damaged else "nothing"
    return f"{file} must hold recorded episodes, a JSON object per line, got {found}"


def _tell(options: argparse.Namespace, file: Path, reading: Reading) -> None:
    from sdar.look.terminal import listed, told

    chosen = _chosen(options, file, reading)
    if options.show is None:
        first = next(chosen, None)
        if first is None and not reading.damaged:
            raise UserError(f"{file} has no episode that fits these options")
        if first is None:
            raise UserError(_nothing(file, reading))
        lines = listed(chain([first], chosen))
    else:
        episode = next((episode for number, episode in chosen if number == options.show), None)
        if episode is None:
            raise UserError(f"--show must be the number of an episode in the list, got {options.show}")
        lines = told(episode, colour=_colours())
    for line in lines:
        print(line)
    if reading.damaged:
        print(f"{reading.damaged} damaged lines were passed over")


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _chosen(options: argparse.Namespace, file: Path, reading: Reading) -> Iterator[tuple[int, Recorded]]:
    """The episodes that the options leave, with their numbers, the first of which is 1."""
    from sdar.look.episodes import read_episodes

    wanted = {"iteration": options.iteration, "task_type": options.type, "outcome": options.outcome, "end": options.end}
    text = None if options.find is None else options.find.casefold()
    for number, episode in enumerate(read_episodes(file, reading), 1):
        fits = all(value is None or getattr(episode, name) == value for name, value in wanted.items())
        if fits and (text is None or any(text in one.casefold() for one in episode.texts())):
            yield number, episode


if __name__ == "__main__":
    run_command(main)
