"""Promises of the figures: by hand, pair by pair, and with the words that belong to them."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest

from sdar.compare.comparison import Sample, summarise_methods, summarise_pairs
from sdar.compare.records import FinishedRun, read_run
from sdar.compare.report import as_record, report
from sdar.evaluation.statistics import p_value
from sdar.run.folder import read_record
from toys.runs import make_run, results

AFTER = {"grpo": [30, 40, 50, 41, 39, 45, 33], "sdar": [36, 41, 58, 40, 47, 52, 35]}
METHODS = ("grpo", "sdar")


Runs = dict[tuple[str, int], FinishedRun]


def runs_of(logs: Path, **settings: object) -> Runs:
    found: Runs = {}
    for method in METHODS:
        for seed in range(7):
            folder = make_run(logs, [], results(10, AFTER[method][seed], **settings))  # type: ignore[arg-type]
            record = read_record(folder / "run.json")
            assert record is not None
            run = read_run(folder, record)
            assert run is not None
            found[method, seed] = run
    return found


def test_differences_that_are_equal_but_for_rounding_are_equal() -> None:
    """11 of 20 less 9, and 12 less 10, as floating-point numbers."""
    sample = Sample((11 / 20 - 9 / 20, 12 / 20 - 10 / 20))
    assert (sample.deviation, sample.detectable) == (0.0, math.inf)
    assert p_value([11 / 20 - 9 / 20, 12 / 20 - 10 / 20]) == 0.0
    assert p_value([0.3 - 0.2 - 0.1, 0.0]) == 1.0


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return runs_of(tmp_path_factory.mktemp("seven"))


@pytest.fixture
def runs(seven: Runs) -> Runs:
    """Two methods on seven seeds."""
    return copy.deepcopy(seven)


def test_the_paired_difference_is_the_mean_of_the_differences(runs: Runs) -> None:
    pair = summarise_pairs(runs, METHODS, range(7))[0]
    differences = [0.06, 0.01, 0.08, -0.01, 0.08, 0.07, 0.02]
    assert (pair.method, pair.baseline, pair.view, pair.seeds) == ("sdar", "grpo", "without skills", tuple(range(7)))
    assert pair.differences.values == pytest.approx(differences)
    mean = sum(differences) / 7
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 6)
    half = 2.446912 * deviation / math.sqrt(7)
    assert pair.differences.student.interval == pytest.approx((mean - half, mean + half), rel=1e-5)
    assert pair.differences.deviation == pytest.approx(deviation)
    assert -0.01 < pair.differences.bootstrap.interval.low < mean < pair.differences.bootstrap.interval.high < 0.08
    # statsmodels 0.15.0: TTestPower().solve_power(nobs=7, alpha=0.05, power=0.8)
    assert pair.differences.detectable == pytest.approx(1.2725667 * deviation, rel=1e-5)


def test_the_rise_is_after_minus_before_of_the_same_run(runs: Runs) -> None:
    grpo, sdar = summarise_methods(runs, METHODS, range(7))[:2]
    assert grpo.after.student.mean == pytest.approx(sum(AFTER["grpo"]) / 700)
    assert sdar.rise.student.mean == pytest.approx(sum(AFTER["sdar"]) / 700 - 0.1)


def test_a_missing_run_leaves_its_pair_out(runs: Runs) -> None:
    del runs["grpo", 3]
    pair = summarise_pairs(runs, METHODS, range(7))[0]
    assert pair.seeds == (0, 1, 2, 4, 5, 6)
    assert "grpo seed=3" in report(runs, METHODS, range(7))


def test_runs_without_a_teacher_have_one_view(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, skills=None)
    assert {pair.view for pair in summarise_pairs(runs, METHODS, range(7))} == {"without skills"}
    assert report(runs, METHODS, range(7))


def test_the_table_shows_every_run_with_n_and_interval(runs: Runs) -> None:
    text = report(runs, METHODS, range(7))
    assert "10.0 -> 58.0 (48.2 to 67.2)" in text
    assert text.count("| 100 |") == 14
    assert "much too narrow" not in text


def test_few_seeds_are_called_few_and_one_seed_has_no_interval(runs: Runs) -> None:
    assert "bootstrap interval is much too narrow" in report(runs, METHODS, range(4))
    alone = report({key: run for key, run in runs.items() if key[1] == 0}, METHODS, [0])
    assert "nothing is known about other seeds" in alone
    assert "nan" not in alone
    assert "inf" not in alone


def test_an_interval_that_holds_0_is_called_no_difference(runs: Runs) -> None:
    assert "the interval holds 0" in report(runs, METHODS, range(3))
    assert "the interval holds 0" not in report(runs, METHODS, range(7)).split("with skills: all pairs")[0]


def test_runs_of_several_revisions_are_told(runs: Runs) -> None:
    runs["sdar", 0].record["git"] = {"revision": "f" * 40, "changed": False}  # type: ignore[index]
    assert "2 revisions of the code" in report(runs, METHODS, range(7))


def test_the_record_is_json_and_holds_every_figure(runs: Runs) -> None:
    record = json.loads(json.dumps(as_record(runs, METHODS, range(7)), allow_nan=False))
    assert len(record["runs"]) == 14
    assert record["runs"][0]["figures"]["trained"]["wilson_95"][0] < 0.3
    assert record["paired_differences"][0]["mean"] == pytest.approx(0.31 / 7)
    one = json.dumps(as_record({k: r for k, r in runs.items() if k[1] == 0}, METHODS, [0]), allow_nan=False)
    assert json.loads(one)["paired_differences"][0]["student_t_95"] == [None, None]
