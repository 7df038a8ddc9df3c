"""Whatever lies where a file of the user is expected: it is read within bounds, or refused in one sentence at once."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sdar.files import (
    FileError,
    brief,
    entries,
    expanded,
    opened,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
)


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", content)
    return packed.getvalue()


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            end.bind(path.name)
        finally:
            os.chdir(before)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


NO_FILES: list[tuple[Callable[[Path], object], str]] = [
    (os.mkfifo, "must be a regular file, got a named pipe"),
    (listen, "must be a regular file, got a socket"),
    (Path.mkdir, "must be a regular file, got a directory"),
    (lambda path: path.symlink_to("/dev/zero"), "must be a regular file, got a device"),
    (lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
    (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)"),
    (lambda path: None, "cannot be read (No such file or directory)"),
    (sparse, "must have at most 1 MB, got 1100 GB"),
]


@pytest.mark.parametrize(("make", "said"), NO_FILES)
def test_what_is_no_file_of_its_kind_is_refused_without_reading_it(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "file"
    make(path)
    for read in (read_bytes, read_text, read_json, opened):
        with pytest.raises(FileError) as caught:
            read(path, 1_000_000)
        assert str(caught.value) == f"{path} {said}"


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0", "\ud800"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        read_text(tmp_path / name, 10)
    with pytest.raises(FileError, match="must be a directory"):
        entries(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_that_does_not_tell_its_size_is_read_up_to_the_limit() -> None:
    with pytest.raises(FileError, match="must have at most 5 bytes, got more"):
        read_bytes("/proc/self/status", 5)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(FileError, match="Permission denied"):
        read_text(tmp_path / "a", 10)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"\xef\xbb\xbfa\r\nb\rc\n", "a\nb\nc\n"),
        ("ü日".encode(), "ü日"),
    ],
)
def test_marks_and_line_ends_of_other_systems_do_no_harm(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "a").write_bytes(content)
    assert read_text(tmp_path / "a", 100) == text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"ab\xff", "other bytes at position 2"),
        ("text".encode("utf-16"), "other bytes at position 0"),
        (b"a\0b", "a NUL character"),
        (gzip.compress(b"{}"), "gzip data, which must be unpacked"),
        (gzip.compress(b"{}")[:15], "gzip data, which must be unpacked"),
        (lzma.compress(b"{}"), "xz data, which must be unpacked"),
        (bz2.compress(b"{}"), "bzip2 data, which must be unpacked"),
        (zipped(b"\xff"), "zip data, which must be unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # packed data hold the time
)
def test_what_is_no_text_is_told(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_text(tmp_path / "a", 10_000)
    assert str(caught.value) == f"{tmp_path / 'a'} must be UTF-8 text, got {found}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value in line 1"),
        ('{"a":\n1', "Expecting ',' delimiter in line 2"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a":' * 100_000, "it is nested too deeply"),
        ("[" + "9" * 5000 + "]", "a number has too many digits"),
    ],
)
def test_what_is_no_json_is_told_in_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(FileError) as caught:
        read_json(tmp_path / "a", 10_000_000)
    assert str(caught.value).endswith(f"must be JSON, got a damaged or incomplete file ({reason})")
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_directories_are_listed_by_name_or_refused(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).touch()
    assert [path.name for path in entries(tmp_path)] == ["a", "b"]
    with pytest.raises(FileError, match="must be a directory, got a file"):
        entries(tmp_path / "a")
    with pytest.raises(FileError, match="must be a directory, got nothing of that name"):
        entries(tmp_path / "c")


def test_the_home_directory_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/data") == Path("/home/me/data")
    assert expanded("~no such user/data") == Path("~no such user/data")


def test_values_in_messages_are_short_whatever_they_are() -> None:
    bomb: list[object] = ["x"]
    for _ in range(60):
        bomb = [bomb] * 9
    assert all(len(brief(value)) <= 120 for value in (bomb, "a" * 10**6, 10**20_000, {str(i): i for i in range(999)}))
    assert brief("text") == "'text'"


WRONG_YAML = [
    ("a: &x [1]\nb: *x", "it has the alias *x; write the value instead"),
    ("&x [*x]", "it has the alias *x; write the value instead"),
    ("[" * 900_000, "it is nested too deeply"),
    ("- " * 100_000, "it is nested too deeply"),
    ("a: 1" + ":1" * 400_000, "a number has too many digits"),
    ("a: " + "9" * 5000, "a number has too many digits"),
    ("a: 2024-13-45", "month must be in 1..12"),
    ("a: !!int ''", "it has a value that does not fit its tag"),
    ("a: !!bool perhaps", "it has a value that does not fit its tag"),
    ("a: !!python/name:os.system", "could not determine a constructor"),
    ("a: [", "while parsing a flow node"),
    ("a: 1\n---\nb: 2", "expected a single document"),
]


@pytest.mark.parametrize(("text", "said"), WRONG_YAML, ids=range(len(WRONG_YAML)))
def test_yaml_that_is_not_plain_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        read_yaml(path, 1_000_000)
    assert str(caught.value).startswith(f"{path} must be plain YAML, got something else ({said}")
    assert "\n" not in str(caught.value)


def test_plain_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: [1, 0.5, yes, ~]\nb: {c: text}\n")
    assert read_yaml(path, 100) == {"a": [1, 0.5, True, None], "b": {"c": "text"}}
    assert parse_yaml("a: &x [1]\nb: *x", aliases=True) == {"a": [1], "b": [1]}
