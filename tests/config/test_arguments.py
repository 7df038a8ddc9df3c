"""Settings of the small commands."""

from __future__ import annotations

import pytest

from sdar.config.arguments import named_values
from sdar.errors import UserError

SERVER = "sdar.environments.search_qa.server.ServerSettings"


def test_values_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUS", "passages.jsonl")
    monkeypatch.setenv("PORT", "8001")
    values = named_values(["corpus=${oc.env:CORPUS}", "port=${oc.decode:${oc.env:PORT}}"], SERVER)
    assert values == {"corpus": "passages.jsonl", "port": 8001}


def test_a_path_is_taken_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/m")
    assert named_values(["corpus=/m\u00fcller (1)/[x]=2, 3.jsonl"], SERVER) == {
        "corpus": "/m\u00fcller (1)/[x]=2, 3.jsonl"
    }
    assert named_values(["corpus=~/x: y", "port=8001"], SERVER) == {"corpus": "/home/m/x: y", "port": 8001}


@pytest.mark.parametrize(
    "argument", ["corpus=", "corpus=a\0b", "environment={", "corpus=${nowhere}", "prot=1", "port=many"]
)
def test_what_cannot_be_read_is_told_in_a_sentence(argument: str) -> None:
    with pytest.raises(UserError):
        named_values([argument], SERVER)
