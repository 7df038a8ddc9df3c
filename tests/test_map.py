"""The map of self-distillation: every cell is a run that there is, seeds are kept apart, and figures are paired."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from sdar.environments.make import ENVIRONMENTS
from sdar.run.validate import compose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SEEN_BY_THE_DEFAULT = {1, 2, 11, 100, 101}


@pytest.fixture(scope="module")
def the_map() -> ModuleType:
    spec = importlib.util.spec_from_file_location("the_map", BENCHMARKS / "map.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["the_map"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.e2e
def test_every_method_and_every_regime_can_be_run(the_map: ModuleType) -> None:
    cells = [cell for series in the_map.PLAN["series"] for cell in the_map.cells(series)]
    by_method = {cell.method: cell for cell in cells}
    by_regime = {cell.regime: cell for cell in cells if cell.method == the_map.BASELINE}
    for cell in (*by_method.values(), *by_regime.values()):
        settings = compose(cell.overrides(Path("logs/map")))
        assert settings.config["seed"] == cell.seed
        named = next((name for name in ENVIRONMENTS if cell.regime.startswith(name)), "alfworld")
        assert settings.config["environment"]["_target_"] == ENVIRONMENTS[named]
        if cell.coefficient is not None and "COEFFICIENT" not in the_map.PLAN["methods"][cell.method]:
            assert settings.method.objective.distillation_coefficient == cell.coefficient


def test_no_seed_serves_two_purposes_and_every_cell_has_its_baseline(the_map: ModuleType) -> None:
    used = [set(series["seeds"]) for series in the_map.PLAN["series"].values()]
    assert len(set().union(*used)) == sum(map(len, used))
    assert not set().union(*used) & SEEN_BY_THE_DEFAULT
    for series in the_map.PLAN["series"]:
        cells = the_map.cells(series)
        assert len({cell.name for cell in cells}) == len(cells)
        baselines = {(cell.regime, cell.seed) for cell in cells if cell.method == the_map.BASELINE}
        assert {(cell.regime, cell.seed) for cell in cells} == baselines


def test_differences_are_taken_pair_by_pair(the_map: ModuleType) -> None:
    def outcome(method: str, seed: int, after: float):
        cell = the_map.Cell("turns8", method, None if method == "grpo" else 0.1, seed)
        return the_map.Outcome(cell, 0.1, 0.4, after, None, 120, "abc", 1.0)

    grpo = [outcome("grpo", 1, 0.2), outcome("grpo", 2, 0.4)]
    sdar = [outcome("sdar", 1, 0.3), outcome("sdar", 2, 0.5), outcome("sdar", 3, 0.9)]
    _, row = the_map.rows([*grpo, *sdar])
    assert row.after.n == 3
    assert row.difference.n == 2  # seed 3 has no partner
    assert row.difference.mean == pytest.approx(10.0)
    assert row.difference.interval.low == pytest.approx(10.0)
    assert "| sdar | 0.1 | 3 | 56.7 |  | +10.0 | +10.0 to +10.0 |" in the_map.table([*grpo, *sdar])


def test_claims_are_corrected_for_their_number(the_map: ModuleType) -> None:
    def outcomes(method: str, *after: float):
        cells = [the_map.Cell("turns8", method, None, seed) for seed in range(len(after))]
        rates = zip(cells, after, strict=True)
        return [the_map.Outcome(cell, 0.1, 0.4, rate, None, 120, "abc", 1.0) for cell, rate in rates]

    grpo = outcomes("grpo", 0.30, 0.33, 0.36, 0.39)
    better, same = outcomes("sdar", 0.40, 0.44, 0.45, 0.50), outcomes("centred", 0.31, 0.31, 0.37, 0.38)
    alone, both = the_map.claims([*grpo, *better]), the_map.claims([*grpo, *better, *same])
    plain, corrected = (float(table.splitlines()[2].split("|")[-2]) for table in (alone, both))
    assert corrected == pytest.approx(2 * plain, rel=0.05)
    assert "| turns8 | sdar |  | 4 | 44.8 | +10.2 |" in both


def test_a_runs_curves_are_kept_by_their_ends_and_best(the_map: ModuleType) -> None:
    assert the_map.ends([0.0] * 10 + [1.0] * 10 + [0.5] * 10) == [0.0, 0.5, 1.0]
    assert the_map.ends([0.2, 0.4]) == [0.3, 0.3, 0.3]


def test_collected_cells_are_read_back_and_none_is_lost(the_map: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(the_map, "DATA", tmp_path)
    monkeypatch.setattr(the_map, "ROOT", tmp_path)
    series = next(iter(the_map.PLAN["series"]))
    first, second = the_map.cells(series)[:2]
    template = the_map.Outcome(first, 0.1, 0.4, 0.2, None, 120, "abc", 1.0)
    found = {first.name: template, second.name: replace(template, cell=second)}
    monkeypatch.setattr(the_map, "_outcome", lambda cell, _folder: found.get(cell.name))
    the_map.collect([first], tmp_path, series)
    assert the_map.read(series) == [template]
    the_map.collect([second], tmp_path, series)  # elsewhere played, the first is not there
    assert the_map.read(series) == list(found.values())
