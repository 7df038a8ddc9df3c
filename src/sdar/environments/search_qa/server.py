"""``sdar search-server corpus=PATH``: Search-R1's retrieval API with BM25 over a corpus.

``POST /retrieve`` uses the format of :mod:`sdar.environments.search_qa.wire`; ``GET /health`` is a liveness check. Run
it on a trusted network: there is neither encryption nor access control.
"""

from __future__ import annotations

import io
import json
import logging
import re
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from annotated_types import Ge, Le

from sdar.config.arguments import named_values
from sdar.config.fields import Fraction, NotNegative, settings
from sdar.environments.search_qa import wire
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.closed_world import ClosedWorld
from sdar.environments.search_qa.retriever import Hit, RetrievalFailure, Retriever
from sdar.environments.search_qa.wire import MAX_TOP_K
from sdar.environments.search_qa.world import WorldSettings
from sdar.errors import UserError, command
from sdar.exchange import shut

log = logging.getLogger(__name__)

_MAX_BODY = 1 << 24
"""Most bytes of a request."""
MAX_REPLY = 1 << 25
"""Most bytes of the passages of a reply."""
REQUEST_S = 60.0
"""How long a client may take to send a request, and again to read the reply, in seconds."""
_AT_ONCE = 64
"""Queries that are searched before the size of what was found is looked at."""
_MAX_DIGITS = 20


class RetrievalServer(ThreadingHTTPServer):
    """Serves a retriever with one thread per connection. The threads call the retriever one at a time.

    ``port`` 0 takes a free port, and ``url`` is the resulting address. Use ``serve_forever`` and ``shutdown``.
    ``max_reply`` bounds the bytes of the passages of a reply, and ``request_s`` the seconds in which a client must have
    sent its request, and must have read the reply: one that is slower is disconnected.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        retriever: Retriever,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        top_k: int = 3,
        max_reply: int = MAX_REPLY,
        request_s: float = REQUEST_S,
    ) -> None:
        self._retriever = retriever
        self.max_reply = max_reply
        self.request_s = request_s
        self._lock = threading.Lock()
        self._connections: set[Any] = set()
        self.top_k = top_k
        # the first address decides between IPv4 and IPv6; the base class binds to the given one
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the API."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/retrieve"

    def find(self, request: wire.Request) -> list[list[Hit]]:
        """Hits of each query. Raises RuntimeError if the retriever fails, and WireError if they are too long."""
        hits: list[list[Hit]] = []
        size = 0
        for start in range(0, len(request.queries), _AT_ONCE):
            with self._lock:
                found = self._retriever.search(request.queries[start : start + _AT_ONCE], request.top_k)
            for answer in found:
                if isinstance(answer, RetrievalFailure):
                    raise RuntimeError(answer.reason)
                size += sum(len(json.dumps(hit.passage.contents)) for hit in answer)  # escapes count as they are sent
                if size > self.max_reply:
                    raise wire.WireError(
                        f"the reply would have more than {self.max_reply} bytes; ask fewer queries, or a smaller topk"
                    )
                hits.append(answer)
        return hits

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that closing the server closes it."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and close all connections."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # the client may have closed it
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log errors, except those of clients that have disconnected."""
        if not isinstance(sys.exception(), ConnectionError):
            log.exception("a request of %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # persistent connections
    disable_nagle_algorithm = True  # otherwise every second write of a persistent connection waits for the other side
    server: RetrievalServer

    def setup(self) -> None:
        """An idle connection is kept for as long as a request may take."""
        super().setup()
        self.connection.settimeout(self.server.request_s)

    def handle_one_request(self) -> None:
        """A request must have come as a whole within its time, however steadily its bytes come."""
        try:
            cast(io.BufferedReader, self.rfile).peek(1)
        except OSError:  # nothing came in time, or the client has left
            self.close_connection = True
            return
        self._clock = self._limit()
        try:
            super().handle_one_request()
        finally:
            self._clock.cancel()

    def _limit(self) -> threading.Timer:
        """A running clock that disconnects the client."""
        clock = threading.Timer(self.server.request_s, shut, [self.connection])
        clock.daemon = True
        clock.start()
        return clock

    def do_POST(self) -> None:
        """Answer a request."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]+", length):
            self.close_connection = True  # its body is not read
            self._reply(411, {"error": "Content-Length must be the length of the body"})
            return
        if len(length) > _MAX_DIGITS or int(length) > _MAX_BODY:
            self.close_connection = True
            self._reply(413, {"error": f"the body must have at most {_MAX_BODY} bytes"})
            return
        body = self.rfile.read(int(length))
        self._clock.cancel()  # a search may take longer
        if self._asked_for() != "/retrieve":
            self._reply(404, {"error": "the path must be /retrieve"})
            return
        try:
            request = wire.decode_request(body, self.server.top_k)
        except wire.WireError as error:
            self._reply(400, {"error": str(error)})
            return
        try:
            found = self.server.find(request)
        except wire.WireError as error:
            self._reply(400, {"error": str(error)})
            return
        except RuntimeError as error:
            self._reply(503, {"error": str(error)})
            return
        except Exception as error:  # such as a changed corpus; the client is informed and the server goes on
            log.exception("a search of %s failed", self.client_address)
            self._reply(500, {"error": f"the search failed: {error}"})
            return
        self._send(200, wire.encode_reply(found, return_scores=request.return_scores))

    def do_GET(self) -> None:
        """Answer a liveness check."""
        if self._asked_for() == "/health":
            self._reply(200, {"status": "ok"})
        else:
            self._reply(404, {"error": "the path must be /health or /retrieve"})

    def _asked_for(self) -> str:
        """The path without query, fragment and trailing slash."""
        return urlsplit(self.path).path.rstrip("/")

    def _reply(self, status: int, message: dict[str, str]) -> None:
        self._send(status, json.dumps(message).encode())

    def _send(self, status: int, body: bytes) -> None:
        self._clock.cancel()
        self._clock = self._limit()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Per-request logging is noise."""
        log.debug(format, *args)


@settings(frozen=True)
class ServerSettings:
    """Settings of the command line. Without ``corpus``, the pages of the default closed world are served."""

    corpus: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535)] = 8000
    top_k: Annotated[int, Ge(1), Le(MAX_TOP_K)] = 3
    k1: NotNegative = 0.9
    b: Fraction = 0.4
    cache_dir: str | None = None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> ServerSettings:
        """The settings of a command line of ``name=value``. Raises UserError for the first mistake."""
        return cls(**named_values(arguments, "sdar.environments.search_qa.server.ServerSettings"))


@command
def main(arguments: Sequence[str]) -> int:
    """Serve until stopped by SIGINT or SIGTERM; returns the exit code."""
    given = ServerSettings.parse(arguments)
    if given.corpus is None:
        retriever = ClosedWorld(WorldSettings(), (1, 1)).retriever
    else:
        retriever = Bm25Retriever.open(given.corpus, cache_dir=given.cache_dir, k1=given.k1, b=given.b)
    try:
        server = RetrievalServer(retriever, host=given.host, port=given.port, top_k=given.top_k)
    except OSError as error:
        raise UserError(f"cannot listen on host={given.host} port={given.port} ({error})") from error
    for number in (signal.SIGINT, signal.SIGTERM):
        # shutdown() waits for the loop that this handler interrupts, so another thread must call it
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        print(f"{len(retriever)} passages at {server.url}", flush=True)
        server.serve_forever(poll_interval=0.1)
    return 0
