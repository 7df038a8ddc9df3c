"""``sdar search-server``: a corpus of passages over HTTP, with Search-R1's API."""

from __future__ import annotations

from collections.abc import Sequence

from sdar.errors import command

_HELP = """\
usage: sdar search-server [corpus=FILE] [host=127.0.0.1] [port=8000] [top_k=3] [k1=0.9] [b=0.4] [cache_dir=FOLDER]

Serves Search-R1's retrieval API with BM25 over a jsonl file of passages, or, without a corpus, over the pages of the
built-in closed world. Ctrl-C stops it.
"""


@command
def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    if {"--help", "-h"} & set(arguments):
        print(_HELP, end="")
        return 0
    from sdar.environments.search_qa import server

    return server.main(arguments)
