"""Runs that told TensorBoard what they do, read back and served."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sdar.callbacks.board.board import Board
from sdar.callbacks.checkpoints import Checkpoints
from sdar.callbacks.tensorboard import Curves
from sdar.objective.gate import GapGate
from sdar.run.folder import write_run_folder
from toys.runs import settings_of
from toys.training import HintTeacher, Memory, toy_datamodule, toy_module, toy_policy, toy_trainer

COMMAND = ["sdar", "train", "algorithm=sdar", "seed=3", "gate.beta=7", "threads=1", "logger.tensorboard.name=x"]
DEEP = """(() => {
  const own = (one) => one.shadowRoot ? all(one.shadowRoot) : [];
  const all = (root) => [...root.querySelectorAll('*')].flatMap((one) => [one, ...own(one)]);
  return all(document);
})()"""
"""An expression: every element of a page, those within components of their own, too."""


def trained(
    folder: Path,
    iterations: int,
    *,
    teacher: bool = True,
    ckpt_path: Path | None = None,
    board: Board | None = None,
    environment: Any = None,
) -> Memory:
    """Train in a folder that a run wrote; its metrics are also kept in memory."""
    settings = settings_of("gate.beta=7", "seed=3") | {"run_dir": str(folder)}
    write_run_folder(folder, settings, started=datetime(2026, 1, 1), command=COMMAND, resumed_from=ckpt_path)
    memory, policy = Memory(), toy_policy()
    reader = HintTeacher() if teacher else None
    objective: dict[str, Any] = {"gate": GapGate(beta=7.0)} if teacher else {"distillation_coefficient": 0.0}
    trainer = toy_trainer(
        iterations,
        logger=[memory, Curves(str(folder), version="tensorboard")],
        callbacks=[board or Board(2, 2, 2), Checkpoints(folder / "checkpoints", best=None)],
        enable_checkpointing=True,
        default_root_dir=str(folder),
    )
    trainer.fit(
        toy_module(policy, reader, **objective),
        datamodule=toy_datamodule(policy, teacher=reader, environment=environment),
        ckpt_path=ckpt_path,
        weights_only=True,
    )
    return memory


def read(folder: Path) -> Any:
    """The events of a run."""
    everything = dict.fromkeys(("scalars", "tensors", "histograms", "images"), 0)
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=everything).Reload()


def text(events: Any, tag: str, number: int = 0) -> str:
    """A text of theirs."""
    return str(events.Tensors(tag)[number].tensor_proto.string_val[0].decode())


class Served:
    """TensorBoard itself, on a port of its own; a context manager.

    Attributes:
        url: of its first page.
    """

    def __init__(self, logs: Path, more: Mapping[str, str] | None = None, seconds: float = 300) -> None:
        folder = logs.absolute()  # TensorBoard shows the name that it was given, which may be on a picture
        options = [f"--{name}={value}" for name, value in {"logdir": folder.name, "port": 0, **(more or {})}.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *options],
            cwd=folder.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.url = self._wait(seconds)

    def _wait(self, seconds: float) -> str:
        assert self._process.stdout is not None
        said, end = "", time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            if select.select([self._process.stdout], [], [], 0.2)[0]:
                said += self._process.stdout.read1(4096).decode(errors="replace")  # type: ignore[attr-defined]
            if found := re.search(r"http://\S+:\d+/", said):
                return found[0]
        self._end()
        raise RuntimeError(f"TensorBoard has not begun: {said[-1000:]}")

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        assert self._process.stdout is not None
        self._process.stdout.close()
