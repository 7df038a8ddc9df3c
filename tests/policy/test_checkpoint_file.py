"""Promises of checkpoint files: whole or not at all, checked before they are read, and never code."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdar.errors import RunFailed, UserError
from sdar.policy.checkpoint_file import damage, first_not_finite, read_checkpoint, share_file, write_checkpoint

CONTENT = {"state_dict": {"a": torch.arange(2000.0), "b": torch.ones(3, dtype=torch.long)}, "epoch": 3}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "last.ckpt"
    write_checkpoint(CONTENT, path)
    return path


def test_what_was_written_is_read(written: Path) -> None:
    assert damage(written) is None
    content = read_checkpoint(written)
    assert torch.equal(content["state_dict"]["a"], CONTENT["state_dict"]["a"])
    assert content["epoch"] == 3
    assert names(written.parent) == ["last.ckpt"]


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_byte_that_changed_inside_a_tensor_is_found(written: Path, at: float) -> None:
    content = bytearray(written.read_bytes())
    start = content.index(torch.arange(2000.0)[100:110].numpy().tobytes())
    content[start + int(at * 4000)] ^= 1
    written.write_bytes(content)
    assert "are not those that were written" in str(damage(written))
    with pytest.raises(UserError, match=r"ckpt_path=.*last.ckpt cannot be read as a checkpoint \(it is damaged"):
        read_checkpoint(written)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_a_file_that_ends_too_early_is_found(written: Path, kept: float) -> None:
    size = written.stat().st_size
    os.truncate(written, int(size * kept) if isinstance(kept, float) else kept % size)
    with pytest.raises(UserError, match=r"it was not written by torch\.save, or only in part"):
        read_checkpoint(written)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: os.mkfifo(path), lambda path: None])
def test_what_is_no_file_is_refused_and_never_waited_for(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    make(path)
    with pytest.raises(UserError, match="it is not a regular file"):
        read_checkpoint(path)


def test_code_is_named_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "done"),))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"evil.ckpt holds code \(posix.mkdir\), which a checkpoint must not"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_full_disk_leaves_what_was_saved_before(call: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    class File:
        def __enter__(self) -> File:
            return self

        def __exit__(self, *error: object) -> None: ...

        def write(self, content: bytes) -> int:
            raise full

    def refuse(*_: Any) -> None:
        raise full

    if call == "open":
        monkeypatch.setattr(Path, "open", lambda *_: File())
    else:
        monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunFailed, match=r"cannot be written \(No space left on device; .* GiB are free\)") as caught:
        write_checkpoint(CONTENT | {"epoch": 4}, written)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert read_checkpoint(written)["epoch"] == 3
    assert names(written.parent) == ["last.ckpt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_numbers_that_are_not_finite_are_not_written(value: float, dtype: torch.dtype, written: Path) -> None:
    moments = {"optimizer_states": [{"state": {0: {"exp_avg": torch.tensor([0.0, value], dtype=dtype)}}}]}
    with pytest.raises(RunFailed, match=r"optimizer_states\[0\].state.0.exp_avg is not finite"):
        write_checkpoint(CONTENT | moments, written)
    assert read_checkpoint(written)["epoch"] == 3
    assert first_not_finite(CONTENT) is None


def test_what_callbacks_keep_may_be_infinite(written: Path) -> None:
    write_checkpoint(CONTENT | {"callbacks": {"EarlyStopping": {"best_score": torch.tensor(float("inf"))}}}, written)
    assert damage(written) is None


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_holds_what_it_held_when_the_first_is_written_anew(
    links: bool, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    best = written.with_name("best.ckpt")
    for _ in range(2):
        share_file(written, best)
    write_checkpoint(CONTENT | {"epoch": 4}, written)
    assert (read_checkpoint(best)["epoch"], read_checkpoint(written)["epoch"]) == (3, 4)
    assert names(written.parent) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.float64(1.0), "callbacks.Mine.best[1] is a numpy.float64"),
        (np.ones(2), "callbacks.Mine.best[1] is a numpy.ndarray"),
        ({"where": Path("x")}, "callbacks.Mine.best[1].where is a pathlib.PosixPath"),
        ({(1, np.int64(2)): 3}, "a key of callbacks.Mine.best[1][1] is a numpy.int64"),
        (lambda: 1, "callbacks.Mine.best[1] is a builtins.function"),
        (threading.Lock(), "callbacks.Mine.best[1] is a _thread.lock"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(value: Any, named: str, written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(RunFailed, match=re.escape(f"{named}, which only code could read back")):
        write_checkpoint({**CONTENT, "callbacks": {"Mine": {"best": [0.5, value]}}}, written)
    assert written.read_bytes() == before
    assert names(written.parent) == ["last.ckpt"]


def test_plain_values_of_every_kind_are_read_back(written: Path) -> None:
    plain = {"a": (1, 2.5, "x", None, True, b"y"), 3: {"set": {1}, "ordered": OrderedDict(b=torch.ones(2))}}
    write_checkpoint({**CONTENT, "callbacks": plain}, written)
    found = read_checkpoint(written)["callbacks"]
    assert found["a"] == plain["a"]
    assert torch.equal(found[3]["ordered"]["b"], torch.ones(2))
