"""``sdar serve``: what is served, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import urllib3
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.commands import serve
from sdar.commands.serve import main
from sdar.policy.language_model import hf_model
from sdar.serving.server import ChatServer
from toys.models import save_tiny
from toys.training import toy_datamodule, toy_module, train
from toys.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one checkpoint, whose weights are not those it began with."""
    folder = tmp_path_factory.mktemp("runs") / "a-run"
    base = save_tiny(folder.parent / "base")
    policy = hf_model(str(base))
    saver = ModelCheckpoint(dirpath=folder / "checkpoints", save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    module = toy_module(policy, distillation_coefficient=0.0)
    train(module, toy_datamodule(policy), 1, callbacks=[saver], enable_checkpointing=True)
    settings = {
        "model": {"_target_": "sdar.policy.language_model.hf_model", "name": str(base)},
        "evaluation": {"sampling": {"temperature": 0.3, "top_p": 0.8, "max_response_tokens": 7}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    torch.save(module.model.state_dict(), folder.parent / "weights.pt")
    return folder


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ChatServer]:
    """What would be served; nothing is."""
    made: list[ChatServer] = []

    monkeypatch.setattr(ChatServer, "serve_until_stopped", lambda server: made.append(server))
    return made


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("source", ["", "checkpoints/last.ckpt"])
def test_a_run_is_served_with_the_weights_and_the_sampling_of_its_evaluations(
    run: Path, source: str, served: list[ChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run / source), "port=0"]) == 0
    assert "a-run at http://127.0.0.1:" in capsys.readouterr().out
    (server,) = served
    model: Any = server.service.model
    weights, expected = model.policy.model.state_dict(), torch.load(run.parent / "weights.pt")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    sampling = model.defaults
    assert (sampling.temperature, sampling.top_p, sampling.max_response_tokens) == (0.3, 0.8, 7)
    assert server.service.name == "a-run"


def test_the_command_line_wins(run: Path, served: list[ChatServer]) -> None:
    settings = ["temperature=0", "max_tokens=5", "model_name=mine", "max_waiting=3", "max_request_kb=2", "threads=1"]
    assert main([str(run), "port=0", *settings]) == 0
    (server,) = served
    sampling = server.service.model.defaults
    assert (sampling.temperature, sampling.top_p, sampling.max_response_tokens) == (0, 0.8, 5)
    service = server.service
    assert (service.name, service.max_waiting, service.max_bytes) == ("mine", 3, 2000)


def test_a_folder_and_a_shipped_model_are_served_too(
    run: Path, served: list[ChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.parent / "base"), "port=0"]) == 0
    assert main(["arithmetic", "port=0"]) == 0
    assert [server.service.name for server in served] == ["base", "arithmetic"]
    assert served[0].service.model.defaults.temperature == 1
    assert "warning" not in capsys.readouterr().err


def test_who_may_reach_it_is_told(run: Path, served: list[ChatServer], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "host=0.0.0.0", "port=0"]) == 0
    assert "neither encryption nor access control" in capsys.readouterr().err
    assert len(served) == 1


def test_a_mistake_is_told_in_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "lonely.ckpt").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"port={taken.getsockname()[1]}"
        for arguments, words in (
            (["port=0"], "RUN_OR_CHECKPOINT is missing"),
            (["moon"], "moon"),
            ([str(tmp_path / "new")], "has no checkpoint yet"),
            ([str(tmp_path / "lonely.ckpt")], "RUN_OR_CHECKPOINT must be a run's folder"),
            ([str(run), "port=70000"], "port must be a whole number >= 0 and <= 65535"),
            ([str(run), "prot=0"], "prot"),
            ([str(run), "temperature=0.001"], "temperature must be"),
            ([str(run), "threads=100000"], "threads=100000"),
            ([str(run), port], "cannot listen on"),
        ):
            assert words in refused(capsys, *arguments)


def test_without_the_extra_it_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert "pip install 'sdar[serve]'" in refused(capsys, str(run))


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sdar", "serve", "arithmetic", "port=0", "threads=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        asked = {"model": "arithmetic", "messages": [{"role": "user", "content": "1 + 1"}]}
        assert urllib3.request("POST", f"{url}/chat/completions", json=asked, timeout=PATIENCE_S).status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out == "ended\n"
    assert "Traceback" not in err
