"""``python -m sdar.warm_start`` reports mistakes in one sentence, before any work."""

from __future__ import annotations

import pytest

from sdar.warm_start.__main__ import main


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--help", "there is no such setting"),
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
