"""Files of ``--config-dir`` are somebody's: what would hang their reading is refused before Hydra reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sdar.config.compose import compose_config
from sdar.config.sources import config_folder, groups
from sdar.errors import UserError
from sdar.objective.gate import GapGate
from sdar.run.validate import compose

BOMB = "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2_000_000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text(BOMB), "must be plain YAML, got something else (it has the alias *a;"),
        (lambda path: path.write_text("[" * 5000), "must be plain YAML, got something else (it is nested too deeply)"),
        (
            lambda path: path.write_text("a: " + "[" * 5000),
            "must be plain YAML, got something else (it is nested too deeply)",
        ),
        (
            lambda path: path.write_text('defaults:\n  - "../\\x2e./elsewhere/bomb"\n'),
            "must name files of the same --config-dir or ours in its defaults, got one with ..",
        ),
        (large, "must have at most 1 MB, got 2 MB"),
        (os.mkfifo, "must be a regular file, got a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "must be a regular file, got a device"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_files_that_would_hang_the_composition_are_named(
    tmp_path: Path, make: Callable[[Path], object], said: str, linked: bool
) -> None:
    own = tmp_path / "own"
    (own / "gate").mkdir(parents=True)
    file = own / "gate" / "mine.yaml"
    if linked:
        (tmp_path / "elsewhere").mkdir()
        (own / "gate" / "link").symlink_to(tmp_path / "elsewhere")
        file = own / "gate" / "link" / "mine.yaml"
    make(file)
    with pytest.raises(UserError) as caught:
        compose_config(["gate=none"], config_dir=own)
    assert str(caught.value).startswith(f"{file} {said}")


def test_what_an_environment_of_ones_own_leaves_open_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "mine.yaml").write_text("_target_: mypkg.Mine\n")
    with pytest.raises(UserError) as caught:
        compose(["environment=mine"], config_dir=tmp_path)
    assert str(caught.value) == "domain is not set: give it as domain=VALUE"


def test_links_that_lead_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "gate").mkdir(parents=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "mine.yaml").write_text("_target_: sdar.objective.gate.NoGate\n")
    (own / "gate" / "link").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "back").symlink_to(own / "gate")
    (own / "gate" / "up").symlink_to(tmp_path)
    (own / "all").symlink_to("/")
    assert groups(own) == {"gate": ["link/mine"]}


def test_a_file_with_the_name_of_one_of_ours_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    file = tmp_path / "gate" / "gap.yaml"
    file.write_text("_target_: sdar.objective.gate.GapGate\nbeta: 7.0\n")
    with pytest.raises(UserError) as caught:
        compose(["gate=gap"], config_dir=tmp_path)
    assert str(caught.value).startswith(f"--config-dir: {file} has the name of one of ours")
    file.write_bytes((config_folder() / "gate" / "gap.yaml").read_bytes())  # a copy is what would be read
    assert compose(["gate=gap"], config_dir=tmp_path).method.objective.gate == GapGate()
    file.rename(file.with_name("steep.yaml")).write_text("_target_: sdar.objective.gate.GapGate\nbeta: 7.0\n")
    assert compose(["gate=steep"], config_dir=tmp_path).method.objective.gate == GapGate(beta=7.0)
