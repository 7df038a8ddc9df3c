"""A server that stands in for vLLM's: the requests that rollouts make, answered by transformers."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


@dataclass
class FakeServer:
    """What the server has, how it behaves, and what it was asked.

    ``takes_weights``  whether it was started with ``VLLM_SERVER_DEV_MODE=1``
    ``stale``          whether weights are taken once only
    ``processed``      whether log-probs are those after temperature
    ``key``            that it wants; None: none
    ``fails``          statuses of its next answers; None closes the connection
    ``busy``           how often it cannot forget
    ``slow_s``         seconds that an answer takes
    ``came``           how many requests have come, answered or not
    """

    model: Any
    context: int = 256
    names: tuple[str, ...] = ("toy",)
    takes_weights: bool = True
    stale: bool = False
    processed: bool = True
    key: str | None = None
    fails: list[int | None] = field(default_factory=list)
    busy: int = 0
    slow_s: float = 0.0
    came: int = 0
    url: str = ""
    asked: list[list[int]] = field(default_factory=list)
    loaded: list[dict[str, torch.Tensor]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and value."""
        if path == "/v1/models":
            return 200, {"data": [{"id": n, "root": n[0], "max_model_len": self.context} for n in self.names]}
        if path == "/v1/completions":
            return self._complete(body)
        if path.startswith(("/collective_rpc", "/reset_prefix_cache?reset_external=true")) and self.takes_weights:
            if path.startswith("/reset"):
                self.busy -= 1
                return 200, {"success": self.busy < 0}
            assert body["method"] == "reload_weights"
            return self._load(Path(body["kwargs"]["weights_path"]))
        return 404, {"detail": "Not Found"}

    def _load(self, folder: Path) -> tuple[int, Any]:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            return 500, {"error": {"message": f"no weights in {folder}"}}
        weights = {name: value for file in files for name, value in load_file(file).items()}
        if not (self.stale and self.loaded):
            self.model.load_state_dict(weights)
        self.loaded.append(weights)
        return 200, {"results": [None]}

    @torch.no_grad()
    def _complete(self, body: Any) -> tuple[int, Any]:
        ids = list(body["prompt"])
        if len(ids) + body["max_tokens"] > self.context:
            return 400, {"error": {"message": "maximum context length"}}
        given = None
        if body.get("prompt_logprobs") is not None:
            rows = self._log_probs(ids, 1.0)
            given = [None, *({str(t): {"logprob": float(row[t])}} for t, row in zip(ids[1:], rows, strict=False))]
        else:
            self.asked.append(list(ids))
        generator = torch.Generator().manual_seed(body.get("seed", 0))
        said, log_probs = [], []
        for _ in range(body["max_tokens"]):
            row = self._log_probs(ids, body["temperature"])[-1]
            token = int(torch.multinomial(row.exp(), 1, generator=generator))
            shown = row if self.processed else self._log_probs(ids, 1.0)[-1]
            ids.append(token)
            said.append(token)
            log_probs.append(float(shown[token]))
            if token in body.get("stop_token_ids", []):
                break
        choice = {"token_ids": said, "logprobs": {"token_logprobs": log_probs}, "prompt_logprobs": given}
        return 200, {"choices": [choice]}

    def _log_probs(self, ids: list[int], temperature: float) -> torch.Tensor:
        logits = self.model(torch.tensor([ids])).logits[0].float()
        return (logits / (temperature or 1e-6)).log_softmax(-1)


@contextmanager
def serving(model: Any, **settings: Any) -> Iterator[FakeServer]:
    """A server with a copy of the model's architecture, whose weights are others until some are handed over."""
    own = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.1)
    fake = FakeServer(own, **settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null"))

        def _reply(self, body: Any) -> None:
            with fake.lock:
                fake.came += 1
            time.sleep(fake.slow_s)
            with fake.lock:
                status, value = 200, None
                if fake.key is not None and self.headers.get("Authorization") != f"Bearer {fake.key}":
                    status, value = 401, {"error": f"wrong key {self.headers.get('Authorization')}"}
                elif fake.fails:
                    failure = fake.fails.pop(0)
                    if failure is None:
                        self.close_connection = True
                        return
                    status, value = failure, {"error": "busy"}
                else:
                    status, value = fake.answer(self.path, body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
