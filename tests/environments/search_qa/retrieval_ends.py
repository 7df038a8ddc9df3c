"""Shared by the tests of the retrieval client and server: a world, a server in a thread, a client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from sdar.environments.search_qa.http_client import HttpRetriever
from sdar.environments.search_qa.retriever import Found, RetrievalFailure
from sdar.environments.search_qa.world import World, WorldSettings
from toys.waiting import PATIENCE_S

WORLD = WorldSettings(people=60, towns=20, books=20)
PASSAGES = World(WORLD, "train").passages


@contextmanager
def serving(made: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=lambda: made.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}/retrieve"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def client(urls: Any, **settings: Any) -> HttpRetriever:
    """Its limits are for a busy machine; a test of what is too slow sets its own."""
    return HttpRetriever(urls, **({"timeout_s": 60.0, "attempts": 2, "patience_s": PATIENCE_S} | settings))


def failure(found: Found) -> str:
    assert isinstance(found, RetrievalFailure)
    return found.reason
