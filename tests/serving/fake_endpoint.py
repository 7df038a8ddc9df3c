"""A chat endpoint whose replies are scripted: what real ones do on a bad day."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sdar.evaluation.endpoint import Endpoint, EndpointSettings
from toys.waiting import PATIENCE_S

Reply = tuple[int, dict[str, str], bytes] | None
"""Status, headers, body; None: no reply until the server is closed."""


def completion(text: str | None, reason: str = "stop") -> Reply:
    """A reply as it should be."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return plain({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


def plain(value: Any, status: int = 200, **headers: str) -> Reply:
    return status, headers, json.dumps(value).encode()


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    return plain({"error": {"message": message, "type": "x", "param": None, "code": code}}, status, **headers)


class FakeEndpoint:
    """``asked``: bodies of completion requests; ``keys``: Authorization headers of all requests."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply], models: Reply) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.closed = threading.Event()
        self._answer, self._models = answer, models
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.keys.append(self.headers.get("Authorization"))
                self._send(fake._models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    fake.asked.append(body)
                    fake.keys.append(self.headers.get("Authorization"))
                    number = len(fake.asked)
                self._send(fake._answer(body, number))

            def _send(self, reply: Reply) -> None:
                if reply is None:
                    fake.closed.wait(PATIENCE_S)
                    self.close_connection = True
                    return
                status, headers, content = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def client(self, **settings: Any) -> Endpoint:
        return Endpoint(
            EndpointSettings(endpoint=self.url, **{"backoff_s": 0.01, "timeout_s": PATIENCE_S / 2, **settings})
        )


MODELS = plain({"object": "list", "data": [{"id": "toy", "object": "model"}]})


@contextmanager
def endpoint_of(
    answer: Callable[[dict[str, Any], int], Reply] | list[Reply], models: Reply = MODELS
) -> Iterator[FakeEndpoint]:
    """An endpoint that answers by a function of body and number (from 1), or in turn, repeating the last reply."""
    if isinstance(answer, list):
        replies = answer
        fake = FakeEndpoint(lambda _, number: replies[min(number, len(replies)) - 1], models)
    else:
        fake = FakeEndpoint(answer, models)
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.closed.set()
        fake.server.shutdown()
        fake.server.server_close()
        thread.join(PATIENCE_S)
