"""The console script ``sdar``: one command per word. What a command needs is imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from sdar.errors import UserError, command, run_command

COMMANDS = {
    "train": ("sdar.commands.train", "train an agent, evaluate it, and say where the results are"),
    "play": ("sdar.commands.play", "play a task in the terminal, or watch a model, and see what the model sees"),
    "compare": ("sdar.compare.app", "train methods over paired seeds and compare them pair by pair"),
    "episodes": ("sdar.commands.episodes", "show recorded episodes token by token: a page, or in the terminal"),
    "report": ("sdar.compare.reporting.app", "write runs as one page with curves, differences, costs and origin"),
    "export": ("sdar.commands.export", "write a checkpoint as a Hugging Face folder"),
    "serve": ("sdar.commands.serve", "serve a trained policy over OpenAI's chat completions API"),
    "evaluate": ("sdar.commands.evaluate", "play an environment's panel against a chat endpoint"),
    "skills": ("sdar.commands.skills", "show what every strategy retrieves for a task, and why"),
    "check": ("sdar.commands.check", "check that an environment keeps to the protocol"),
    "search-server": ("sdar.commands.search_server", "serve a corpus of passages over HTTP"),
}
"""Word -> (module with a ``main``, what it does)."""


def cli() -> None:
    """The entry point of the console script."""
    run_command(main)


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: sdar COMMAND ...\n")
        print("\n".join(f"  {name:<14} {words}" for name, (_, words) in COMMANDS.items()))
        print("\nsdar COMMAND --help says what a command takes.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from sdar import __version__

        print(f"sdar {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; it must be one of {', '.join(COMMANDS)}")
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code
