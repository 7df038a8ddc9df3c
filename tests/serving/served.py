"""A chat server in a thread, and requests to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from sdar.serving.app import Service
from sdar.serving.server import ChatServer, listen
from toys.waiting import PATIENCE_S, until


@contextmanager
def serving(model: Any, *, max_waiting: int = 8, max_bytes: int = 100_000) -> Iterator[ChatServer]:
    """A server of ``model`` under the name "toy"; it is stopped at the end, and must end."""
    service = Service(model, "toy", max_waiting=max_waiting, max_bytes=max_bytes)
    server = ChatServer(service, listen("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def wait_inside(server: ChatServer, number: int) -> None:
    """Until so many requests are being answered or wait, in the order in which they came in."""
    until(lambda: server.service.inside == number)


def post(server: ChatServer, **body: Any) -> urllib3.BaseHTTPResponse:
    """Ask for a completion; ``messages`` may be one text."""
    if isinstance(body.get("messages"), str):
        body["messages"] = [{"role": "user", "content": body["messages"]}]
    return urllib3.request("POST", f"{server.url}/chat/completions", json={"model": "toy", **body}, timeout=PATIENCE_S)
