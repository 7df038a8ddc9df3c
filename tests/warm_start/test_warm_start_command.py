"""``python -m sdar.warm_start`` reports mistakes in one sentence, before any work, and is killed without harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdar.policy.language_model import tiny_model, weights_hash
from sdar.warm_start import __main__ as warm_start
from sdar.warm_start.__main__ import RECORD, main

SMALL = [
    "environment=arithmetic",
    "threads=1",
    "cycles=2",
    "training.steps=2",
    "training.batch_size=2",
    "shape.hidden_size=16",
    "shape.layers=1",
    "shape.heads=2",
]


def cycles_of(folder: Path) -> int:
    return int(json.loads((folder / RECORD).read_text())["finished_cycles"])


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("environment={", "the arguments must be name=value, got environment={"),
        ("environment=moon", "environment must be one of alfworld, arithmetic, search_qa, webshop, got moon"),
        ("environment=3", "environment must be a text, got 3"),
        ("sed=1", "did you mean seed?"),
        ("training.step=1", "did you mean training.steps?"),
        ("training.steps=few", "training.steps must be a whole number, got 'few'"),
        ("shape.layers=0", "shape.layers must be >= 1, got 0"),
        ("shape.heads=3", "shape.heads must be an even number >= 2, got 3"),
        ("shape.hidden_size=100", "shape.hidden_size must be a multiple of 8, twice the heads, got 100"),
        ("shape.width=64", "there is no such setting"),
        ("training.products=half", "training.products must be auto, bfloat16 or float32, got half"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(argument: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_help_has_the_settings_of_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["environment=webshop", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m sdar.warm_start")
    assert "environment: webshop" in shown
    assert "max_turns: 8" in shown


def test_a_model_of_others_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main([*SMALL, f"out={tmp_path}"]) == 2
    assert "has a model that this command did not make; set another folder" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == "{}"


class Killed(BaseException):
    pass


def test_a_command_that_is_killed_while_it_saves_gives_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any number of moves of files: those of a cycle and its record come together or not at all."""
    monkeypatch.setattr(warm_start, "evaluate_warm_start", lambda *_: [])
    assert main([*SMALL, f"out={tmp_path / 'whole'}"]) == 0
    expected = weights_hash(tiny_model(tmp_path / "whole").model)
    replace = Path.replace
    for moves in range(30):
        left = moves

        def until_killed(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return replace(self, target)

        out = tmp_path / f"killed{moves}"
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", until_killed)
            try:
                done = main([*SMALL, f"out={out}"]) == 0
            except Killed:
                done = False
        assert main([*SMALL, f"out={out}"]) == 0
        assert cycles_of(out) == 2
        assert weights_hash(tiny_model(out).model) == expected
        if done:
            break
    else:
        pytest.fail("the command never ended")
    assert moves > 10
