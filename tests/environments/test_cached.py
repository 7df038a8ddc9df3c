"""Folders that are made once: whole or not there, made by one process, and without what killed processes left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest

from sdar.environments.cached import is_whole, write_folder
from toys.waiting import PATIENCE_S, until

SPAWN = multiprocessing.get_context("spawn")


def entries(root: Path) -> set[str]:
    """What there is beside the empty files of the locks."""
    return {path.name for path in root.iterdir() if path.suffix != ".lock"}


def filled(text: str = "text") -> Callable[[Path], Mapping[str, Any]]:
    def fill(partial: Path) -> Mapping[str, Any]:
        (partial / "file").write_text(text)
        return {}

    return fill


def _build(folder: Path, signs: Path) -> None:
    def fill(partial: Path) -> Mapping[str, Any]:
        (partial / "file").write_text("slow")
        (signs / "begun").touch()
        while not (signs / "go on").exists():
            time.sleep(0.01)
        return {}

    (signs / f"asks {os.getpid()}").touch()
    write_folder(folder, fill)


@contextmanager
def building(folder: Path, signs: Path) -> Iterator[Any]:
    """Another process that makes a folder, and waits in the middle for the sign "go on"."""
    signs.mkdir()
    process = SPAWN.Process(target=_build, args=(folder, signs), daemon=True)
    process.start()
    try:
        until((signs / "begun").exists)
        yield process
    finally:
        (signs / "go on").touch()
        process.join(PATIENCE_S)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("own", [True, False])
def test_what_a_killed_process_left_is_removed_when_the_next_folder_is_made(root: Path, own: bool) -> None:
    with building(root / "a-1", root.parent / "signs") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE_S)
    assert [path.name[:5] for path in root.glob(".a-1-*")] == [".a-1-"]
    (root / ".b-older_1").touch()  # vectors were a file once
    next_one = root / ("a-1" if own else "c")
    write_folder(next_one, filled())
    assert entries(root) == {next_one.name}


def test_a_folder_in_the_making_is_never_removed_and_its_maker_is_waited_for(root: Path) -> None:
    with building(root / "a", root.parent / "signs") as process:
        for name in ("b", "a-b", "c"):
            write_folder(root / name, filled())
        (partial,) = (root / name for name in entries(root) - {"b", "a-b", "c"})
        assert (partial / "file").read_text() == "slow"
        waiting = SPAWN.Process(target=_build, args=(root / "a", root.parent / "signs"), daemon=True)
        waiting.start()
        until((root.parent / "signs" / f"asks {waiting.pid}").exists)
        waiting.join(0.5)
        assert waiting.is_alive()
        assert partial.is_dir()
        (root.parent / "signs" / "go on").touch()
        waiting.join(PATIENCE_S)
    assert (process.exitcode, waiting.exitcode) == (0, 0)
    assert is_whole(root / "a")
    assert (root / "a" / "file").read_text() == "slow"
    assert entries(root) == {"a", "b", "a-b", "c"}


def test_a_folder_that_is_whole_is_not_made_again(root: Path) -> None:
    write_folder(root / "a", filled("first"))
    write_folder(root / "a", lambda _: pytest.fail("it is made again"))
    (root / "a" / "file").write_text("")
    write_folder(root / "a", filled("second"))
    assert (root / "a" / "file").read_text() == "second"


@pytest.mark.parametrize("error", [OSError("no locks available"), NotImplementedError()])
def test_without_locks_it_is_made_and_nothing_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    (root / ".b-somebody").mkdir()
    (root / ".a-somebody").mkdir()
    write_folder(root / "a", filled())
    assert is_whole(root / "a")
    assert entries(root) == {"a", ".a-somebody", ".b-somebody"}


def test_a_failure_leaves_nothing_and_other_hidden_files_stay(root: Path) -> None:
    def fill(partial: Path) -> Mapping[str, Any]:
        (partial / "file").touch()
        raise OSError("no space")

    (root / ".hidden").touch()
    with pytest.raises(OSError, match="no space"):
        write_folder(root / "a", fill)
    assert entries(root) == {".hidden"}
