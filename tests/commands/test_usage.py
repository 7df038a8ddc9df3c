"""A command without arguments has done nothing, and says so by its exit code."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("name", ["evaluate", "export", "serve", "skills"])
def test_the_usage_is_an_answer_only_where_it_was_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(f"sdar.commands.{name}").main
    for arguments, code in ((["--help"], 0), ([], 2)):
        assert main(arguments) == code
        assert f"usage: sdar {name}" in capsys.readouterr().out
