"""``python -m sdar.environments.search_qa.server corpus=PATH``: a corpus behind Search-R1's retrieval API, by BM25.

``POST /retrieve`` answers as :mod:`sdar.environments.search_qa.wire` says; ``GET /health`` tells that it is there.
It is for a trusted network: there is no encryption and no access control.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.environments.search_qa import wire
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.closed_world import ClosedWorld
from sdar.environments.search_qa.retriever import Hit, RetrievalFailure, Retriever
from sdar.environments.search_qa.world import WorldSettings
from sdar.errors import UserError, command

log = logging.getLogger(__name__)

_MAX_BODY = 1 << 24
"""Bytes of a request."""
_MAX_DIGITS = 20


class RetrievalServer(ThreadingHTTPServer):
    """Serves a retriever; every connection has a thread, and the retriever is asked by one at a time.

    ``port`` 0 takes a free one; ``url`` is where to ask. Use ``serve_forever`` and ``shutdown``.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, retriever: Retriever, *, host: str = "127.0.0.1", port: int = 0, top_k: int = 3) -> None:
        self._retriever = retriever
        self._lock = threading.Lock()
        self._connections: set[Any] = set()
        self.top_k = top_k
        # the first address decides whether this is IPv4 or IPv6; the base class binds what it is told
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the API."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/retrieve"

    def find(self, request: wire.Request) -> list[list[Hit]]:
        """Hits of each query; RuntimeError where the retriever itself failed."""
        with self._lock:
            found = self._retriever.search(request.queries, request.top_k)
        hits: list[list[Hit]] = []
        for answer in found:
            if isinstance(answer, RetrievalFailure):
                raise RuntimeError(answer.reason)
            hits.append(answer)
        return hits

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that closing the server closes it, too."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and answering: kept connections end."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # the client may have been first
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is its own business; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError):
            log.exception("a request of %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True  # else every second write of a kept connection waits for the other side
    timeout = 60
    server: RetrievalServer

    def do_POST(self) -> None:
        """Answer a request."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]+", length):
            self.close_connection = True  # its body stays unread
            self._reply(411, {"error": "the length of the body is needed, as Content-Length"})
            return
        if len(length) > _MAX_DIGITS or int(length) > _MAX_BODY:
            self.close_connection = True
            self._reply(413, {"error": f"a body of at most {_MAX_BODY} bytes is allowed"})
            return
        body = self.rfile.read(int(length))
        if self._asked_for() != "/retrieve":
            self._reply(404, {"error": "only /retrieve answers"})
            return
        try:
            request = wire.decode_request(body, self.server.top_k)
        except wire.WireError as error:
            self._reply(400, {"error": str(error)})
            return
        try:
            found = self.server.find(request)
        except RuntimeError as error:
            self._reply(503, {"error": str(error)})
            return
        except Exception as error:  # such as a corpus that was changed: told to the client, too, and the next may do
            log.exception("a search of %s failed", self.client_address)
            self._reply(500, {"error": f"the search failed: {error}"})
            return
        self._send(200, wire.encode_reply(found, return_scores=request.return_scores))

    def do_GET(self) -> None:
        """Tell that the server is there."""
        if self._asked_for() == "/health":
            self._reply(200, {"status": "ok"})
        else:
            self._reply(404, {"error": "only /health and /retrieve answer"})

    def _asked_for(self) -> str:
        """The path without what follows it, and without a slash at its end."""
        return urlsplit(self.path).path.rstrip("/")

    def _reply(self, status: int, message: dict[str, str]) -> None:
        self._send(status, json.dumps(message).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are many, and no news."""
        log.debug(format, *args)


@dataclass
class Command:
    """Settings of the command line. ``corpus`` null: the pages of the default closed world."""

    corpus: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    top_k: int = 3
    k1: float = 0.9
    b: float = 0.4
    cache_dir: str | None = None


@command
def main(arguments: Sequence[str]) -> int:
    """Serve until stopped by SIGINT or SIGTERM; returns the exit code."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Command), OmegaConf.from_cli(list(arguments)))
    except OmegaConfBaseException as error:
        allowed = ", ".join(Command.__annotations__)
        raise UserError(f"{str(error).splitlines()[0]}; allowed settings: {allowed}") from error
    settings = OmegaConf.to_object(merged)
    assert isinstance(settings, Command)
    if not 1 <= settings.top_k <= wire.MAX_TOP_K:
        raise UserError(f"top_k={settings.top_k}: allowed is a whole number from 1 to {wire.MAX_TOP_K}")
    if settings.corpus is None:
        retriever = ClosedWorld(WorldSettings(), (1, 1)).retriever
    else:
        retriever = Bm25Retriever.open(settings.corpus, cache_dir=settings.cache_dir, k1=settings.k1, b=settings.b)
    try:
        server = RetrievalServer(retriever, host=settings.host, port=settings.port, top_k=settings.top_k)
    except (OSError, OverflowError) as error:
        raise UserError(f"host={settings.host} port={settings.port}: it cannot be listened on ({error})") from error
    for number in (signal.SIGINT, signal.SIGTERM):
        # shutdown() waits for the loop that this handler interrupts, so it is called from elsewhere
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        print(f"{len(retriever)} passages at {server.url}", flush=True)
        server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
