"""Uploading to a hub on the loopback: what arrives, and what stays when it cannot."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.commands.export import main
from sdar.policy.language_model import hf_model
from toys.models import save_tiny
from toys.training import toy_datamodule, toy_module, train

TOKEN = "hf_very_secret"


class FakeHub:
    """The few routes that creating a repository and uploading a folder use.

    ``files``    path -> content of what was committed
    ``created``  bodies of requests for a repository; ``keys`` are the Authorization headers of all requests
    ``refuses``  part of a path -> status with which such requests are answered
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.refuses: dict[str, int] = {}
        self.public = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                hub.keys.add(self.headers.get("Authorization"))
                path = self.path.partition("?")[0]
                status = next((status for part, status in hub.refuses.items() if part in path), 200)
                value = {"error": f"no, {TOKEN}"} if status != 200 else hub.answer(path, body)
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, body: bytes) -> Any:
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.url}/me/agent", "name": "me/agent", "id": "1"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            return {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]}
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": f"{self.url}/me/agent/commit/1", "commitOid": "1", "success": True}
        if path.startswith("/api/models/"):
            return {"id": "me/agent", "private": not self.public, "sha": "0", "tags": [], "siblings": []}
        raise AssertionError(path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    made = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(20)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    base = save_tiny(folder / "base")
    policy = hf_model(str(base))
    where = folder / "run/checkpoints"
    saver = ModelCheckpoint(dirpath=where, save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    module = toy_module(policy, distillation_coefficient=0.0)
    train(module, toy_datamodule(policy), 1, callbacks=[saver], enable_checkpointing=True)
    settings = {"model": {"_target_": "sdar.policy.language_model.hf_model", "name": str(base)}}
    (folder / "run/config.yaml").write_text(yaml.safe_dump(settings))
    return where / "last.ckpt"


def push(checkpoint: Path, out: Path, *settings: str) -> int:
    return main([f"ckpt_path={checkpoint}", f"out={out}", "push_to_hub=me/agent", *settings])


def test_the_folder_arrives_as_it_is(checkpoint: Path, tmp_path: Path, hub: FakeHub, capsys: Any) -> None:
    out = tmp_path / "out"
    assert push(checkpoint, out) == 0
    assert hub.files == {file.name: file.read_bytes() for file in out.iterdir()}
    assert {"README.md", "model.safetensors", "tokenizer.json", "config.json"} <= set(hub.files)
    assert b"# agent\n" in hub.files["README.md"]  # it is called as on the Hub
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("me", "agent")
    assert created.get("private", created.get("visibility")) in (True, "private")
    assert hub.keys == {f"Bearer {TOKEN}"}
    shown = capsys.readouterr()
    assert "me/agent" in shown.out
    assert TOKEN not in shown.out + shown.err


def test_public_is_said(checkpoint: Path, tmp_path: Path, hub: FakeHub) -> None:
    hub.public = True
    assert push(checkpoint, tmp_path / "out", "private=false") == 0
    (created,) = hub.created
    assert created.get("private", created.get("visibility")) in (False, "public")
    assert hub.files


def told(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert TOKEN not in err
    assert "Traceback" not in err
    return line


@pytest.mark.parametrize(
    ("refuses", "words"),
    [
        ({"/api/": 401}, "does not accept the token"),
        ({"/repos/create": 403, "/api/models": 403}, "may not write"),
        ({"/commit/": 403}, "may not write"),
        ({"/commit/": 400}, "refuses (status 400"),
        ({"/repos/create": 500}, "refuses (status 500"),
    ],
    ids=["401", "403", "403 at the commit", "400 at the commit", "500"],
)
def test_what_is_refused_is_told_and_the_folder_stays(
    refuses: dict[str, int], words: str, checkpoint: Path, tmp_path: Path, hub: FakeHub, capsys: Any
) -> None:
    hub.refuses = refuses
    out = tmp_path / "out"
    assert push(checkpoint, out) == 1
    line = told(capsys)
    assert words in line
    assert f"hf upload me/agent {out}" in line
    assert (out / "model.safetensors").is_file()
    assert hub.files == {}


def test_a_repository_that_is_public_already_is_not_written_to_by_default(
    checkpoint: Path, tmp_path: Path, hub: FakeHub, capsys: Any
) -> None:
    hub.public = True
    assert push(checkpoint, tmp_path / "out") == 1
    assert "is public; private=false uploads to it" in told(capsys)
    assert hub.files == {}


def test_a_hub_that_is_not_there(
    checkpoint: Path, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port, where nobody listens
    assert push(checkpoint, tmp_path / "out") == 1
    assert "the Hub fails (" in told(capsys)
    assert (tmp_path / "out" / "README.md").is_file()


def test_without_a_token_nothing_is_done(
    checkpoint: Path, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert push(checkpoint, tmp_path / "out") == 2
    assert "needs a token with write access: hf auth login, or set HF_TOKEN" in told(capsys)
    assert list(tmp_path.iterdir()) == []
    assert hub.created == []
