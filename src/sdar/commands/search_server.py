"""``sdar search-server``: a corpus of passages over HTTP, as Search-R1 asks for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdar.errors import command

_HELP = """\
usage: sdar search-server [corpus=FILE] [host=127.0.0.1] [port=8000] [top_k=3] [k1=0.9] [b=0.4] [cache_dir=FOLDER]

Answers Search-R1's retrieval API over a jsonl file of passages, by BM25; without a corpus over the pages of the
built-in closed world. It stops on Ctrl-C.
"""


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    if {"--help", "-h"} & set(arguments):
        print(_HELP, end="")
        return 0
    from sdar.environments.search_qa import server

    return server.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
