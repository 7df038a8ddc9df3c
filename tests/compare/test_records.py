"""Records that were changed or damaged: a run with one is made again, and the comparison never fails on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdar.compare.records import Found, find_runs, read_run
from sdar.compare.report import as_record, report
from sdar.run.identity import run_identity
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
    (tmp_path / "results.json").write_text(put(results(), path, text))
    assert read_run(tmp_path, {}) is None


@pytest.mark.parametrize("change", RECORDS)
def test_a_record_of_another_shape_makes_its_run_unreadable(tmp_path: Path, change: str) -> None:
    path, _, text = change.partition(" ")
    (tmp_path / "results.json").write_text(json.dumps(results()))
    assert read_run(tmp_path, {}) is not None
    assert read_run(tmp_path, json.loads(put({}, path, text))) is None


def test_an_unreadable_run_is_found_as_such(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [], put(results(), "evaluations", "5"))
    assert found(tmp_path) == Found(unreadable=(folder,))


def test_a_run_whose_last_panel_failed_is_reported_without_a_rate(tmp_path: Path) -> None:
    failed = results()
    failed["results"][3] |= {"n": 0, "successes": 0, "errors": 6}
    (tmp_path / "results.json").write_text(json.dumps(failed))
    run = read_run(tmp_path, {})
    assert run is not None
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "results.json").write_text(json.dumps(results()))
    other = read_run(whole, {})
    assert other is not None
    for runs in ({("grpo", 0): run}, {("grpo", 0): run, ("grpo", 1): other}):
        assert " - |" in report(runs, ["grpo"], [0, 1])
        as_record(runs, ["grpo"], [0, 1])


def test_a_record_with_another_hash_is_of_another_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [], results())
    record = json.loads((folder / "run.json").read_text())
    for text in ("[1]", "{}", "3", "null", "1e400"):
        (folder / "run.json").write_text(put(record, "config_hash", text))
        assert found(tmp_path) == Found()


def test_settings_with_an_impossible_length_are_of_another_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [], results(), checkpoint=True)
    config = (folder / "config.yaml").read_text()
    for length in ("x", "[1]", ".nan", "true"):
        (folder / "config.yaml").write_text(config.replace("max_epochs: 40", f"max_epochs: {length}"))
        assert found(tmp_path).finished is None


def test_a_run_outside_a_clone_is_reported(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(put(results(), "evaluations", "null"))
    records: list[dict[str, Any]] = [{}, {"git": None, "versions": None}, {"git": {}, "versions": {"torch": None}}]
    for record in records:
        run = read_run(tmp_path, record)
        assert run is not None
        assert report({("grpo", 0): run}, ["grpo"], [0])
        assert as_record({("grpo", 0): run}, ["grpo"], [0])["runs"][0]["curve"] == []


def test_two_classes_of_a_package_are_two_methods_and_ours_may_move() -> None:
    def identity(gate: str) -> str:
        settings = settings_of()
        return run_identity(settings | {"gate": {"_target_": gate, "beta": 5.0}})

    assert identity("mypkg.one.Mine") != identity("mypkg.other.Mine")
    assert identity("sdar.objective.gate.GapGate") == identity("sdar.objective.gates.GapGate")
