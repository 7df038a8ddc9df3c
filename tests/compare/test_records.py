"""Records that were changed or damaged: a run with one is made again, and the comparison never fails on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdar.compare.records import Found, find_runs
from sdar.compare.report import as_record, report
from sdar.run.folder import run_identity
from toys.runs import make_run, results, settings_of


def found(logs: Path, *overrides: str) -> Found:
    settings = settings_of(*overrides)
    return find_runs(logs, [settings])[run_identity(settings)]


def put(record: Any, path: str, text: str) -> str:
    """The record in JSON, with the text in the place of one value."""
    *names, last = path.split("/")
    for name in names:
        record = record[int(name) if isinstance(record, list) else name]
    record[last] = "HERE"
    return json.dumps(record).replace('"HERE"', text)


RESULTS = [
    *(
        f"results/3/n {text}"
        for text in ("1e400", "-1", "NaN", "true", '"6"', "[]", "null", "1" + "0" * 400, "39", "0")
    ),
    *(f"results/3/successes {text}" for text in ("-1", "101", "40.5", "true", "{}", "-1e400")),
    *(f"results/3/errors {text}" for text in ("-1", '"x"', "[1]", "1e400")),
    *(f"results/3/name {text}" for text in ("3", "[1]", r'"\ud800"', r'"\u001b[31m"')),
    *(f"results {text}" for text in ("3", "[3]", "{}", "null", '"x"')),
    *(f"evaluations {text}" for text in ("5", "[3]", "{}", '"x"', '[{"name": "x", "n": 1, "successes": 2}]')),
    *(f"training {text}" for text in ("5", "[]", "{}", '"x"')),
    *(f"training/seconds {text}" for text in ("NaN", "1e400", "-1", '"x"', "[1]", "1" + "0" * 400)),
    *(f"training/iterations {text}" for text in ("1e400", "-1", "4.5", '"4"', "null")),
    *(f"training/content_hash {text}" for text in ("3", r'"\u001b[2J"')),
    *(f"panel/content_hash {text}" for text in ("3", "null", r'"\u001b[2J"', r'"a\nb"')),
    *(f"model/initial_weights {text}" for text in ("3", "null", r'"\udcff"')),
    *(f"{group} {text}" for group in ("panel", "model") for text in ("3", "[]", "null", '"x"')),
]
RECORDS = [
    *(f"git {text}" for text in ('"x"', "3", "[1]", '{"revision": [1]}', '{"revision": 3}', '{"changed": "x"}')),
    *(f'git {{"revision": {text}}}' for text in (r'"\u001b[31mred"', r'"\ud800"', r'"a\nb"', r'"\u202ea"')),
    *(
        f"versions {text}"
        for text in ("[1]", '"x"', "3", '{"torch": 2}', r'{"torch": "\u001b[31m"}', r'{"\ud800": "1"}')
    ),
    *(f"started {text}" for text in ("3", "[]", r'"\ud800"')),
]


@pytest.mark.parametrize("change", RESULTS)
def test_results_of_another_shape_are_unreadable(tmp_path: Path, change: str) -> None:
    path, _, text = change.partition(" ")
    folder = make_run(tmp_path, [], put(results(), path, text))
    assert found(tmp_path) == Found(unreadable=(folder,))


@pytest.mark.parametrize("change", RECORDS)
def test_a_run_whose_record_has_another_shape_is_unreadable(tmp_path: Path, change: str) -> None:
    path, _, text = change.partition(" ")
    folder = make_run(tmp_path, [], results())
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(put(record, path, text))
    assert found(tmp_path) == Found(unreadable=(folder,))


@pytest.mark.parametrize("hash_", ["[1]", "{}", "3", "null", "1e400"])
def test_a_record_with_another_hash_is_of_another_run(tmp_path: Path, hash_: str) -> None:
    folder = make_run(tmp_path, [], results())
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(put(record, "config_hash", hash_))
    assert found(tmp_path) == Found()


@pytest.mark.parametrize("length", ["x", "[1]", ".nan", ".inf", "null", "1.5", "true"])
def test_settings_with_an_impossible_length_are_of_another_run(tmp_path: Path, length: str) -> None:
    folder = make_run(tmp_path, [], results(), checkpoint=True)
    config = (folder / "config.yaml").read_text()
    assert "max_epochs: 40" in config
    (folder / "config.yaml").write_text(config.replace("max_epochs: 40", f"max_epochs: {length}"))
    assert found(tmp_path) == Found()


@pytest.mark.parametrize(
    ("path", "text"), [("git", "null"), ("versions", "null"), ("versions", '{"torch": null}'), ("git", "{}")]
)
def test_a_run_outside_a_clone_is_reported(tmp_path: Path, path: str, text: str) -> None:
    folder = make_run(tmp_path, [], put(results(), "evaluations", "null"))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(put(record, path, text))
    run = found(tmp_path).finished
    assert run is not None
    assert report({("grpo", 0): run}, ["grpo"], [0])
    assert as_record({("grpo", 0): run}, ["grpo"], [0])["runs"][0]["curve"] == []
