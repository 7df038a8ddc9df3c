"""The map of self-distillation: every cell is a run that there is, seeds are kept apart, and figures are paired."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdar.environments.make import ENVIRONMENTS
from sdar.run.validate import compose

SEEN_BY_THE_DEFAULT = {1, 2, 11, 100, 101}
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
the_map, map_cells, map_claims, map_tables = map(
    importlib.import_module, ("map", "map_cells", "map_claims", "map_tables")
)
sys.path.pop(0)
PLAN = map_cells.PLAN


@pytest.mark.e2e
def test_every_method_and_every_regime_can_be_run() -> None:
    cells = [cell for series in PLAN["series"] for cell in map_cells.cells(series)]
    by_method = {cell.method: cell for cell in cells}
    by_regime = {cell.regime: cell for cell in cells if cell.method == map_cells.BASELINE}
    for cell in (*by_method.values(), *by_regime.values()):
        settings = compose(cell.overrides(Path("logs/map")))
        assert settings.config["seed"] == cell.seed
        experiment = PLAN["regimes"].get(cell.regime, {"experiment": cell.regime})["experiment"]
        named = next((name for name in ENVIRONMENTS if experiment.startswith(name)), "alfworld")
        assert settings.config["environment"]["_target_"] == ENVIRONMENTS[named]
        if cell.coefficient is not None and "COEFFICIENT" not in PLAN["methods"][cell.method]:
            assert settings.method.objective.distillation_coefficient == cell.coefficient


def test_no_seed_serves_two_purposes_and_every_cell_has_its_baseline() -> None:
    # Claims may be made of the same runs; where cells or coefficients are chosen, the seeds serve nothing else.
    claimed = {tuple(series["seeds"]) for series in PLAN["series"].values() if "statements" in series}
    used = [set(seeds) for seeds in claimed]
    used += [set(series["seeds"]) for series in PLAN["series"].values() if "statements" not in series]
    assert len(set().union(*used)) == sum(map(len, used))
    assert not set().union(*used) & SEEN_BY_THE_DEFAULT
    for series in PLAN["series"]:
        cells = map_cells.cells(series)
        assert len({cell.name for cell in cells}) == len(cells)
        baselines = {(cell.regime, cell.seed) for cell in cells if cell.method == map_cells.BASELINE}
        assert {(cell.regime, cell.seed) for cell in cells} == baselines


def test_differences_are_taken_pair_by_pair() -> None:
    def outcome(method: str, seed: int, after: float):
        cell = map_cells.Cell("turns8", method, None if method == "grpo" else 0.1, seed)
        return map_cells.Outcome(cell, 0.1, 0.4, after, None, 120, "abc", 1.0)

    grpo = [outcome("grpo", 1, 0.2), outcome("grpo", 2, 0.4)]
    sdar = [outcome("sdar", 1, 0.3), outcome("sdar", 2, 0.5), outcome("sdar", 3, 0.9)]
    _, row = map_tables.rows([*grpo, *sdar])
    assert row.after.n == 3
    assert row.difference.n == 2  # seed 3 has no partner
    assert row.difference.mean == pytest.approx(10.0)
    assert row.difference.interval.low == pytest.approx(10.0)
    assert "| sdar | 0.1 | 3 | 56.7 |  | +10.0 | equal pairs |" in map_tables.table([*grpo, *sdar])
    sdar[1] = outcome("sdar", 2, 0.52)  # differences of 10 and 12 points: t(1) is 12.706
    assert "| sdar | 0.1 | 3 | 57.3 |  | +11.0 | -1.7 to +23.7 |" in map_tables.table([*grpo, *sdar])


def runs(method: str, *after: float, coefficient: float | None = None, **others: object):
    """Outcomes on seeds 0, 1, ..."""
    cells = [map_cells.Cell("turns8", method, coefficient, seed) for seed in range(len(after))]
    made = [
        map_cells.Outcome(cell, 0.1, 0.4, rate, None, 120, "abc", 1.0) for cell, rate in zip(cells, after, strict=True)
    ]
    return [replace(outcome, **others) for outcome in made]


def verdicts(lines, outcomes, pairs: int = 4) -> list[tuple[str, float, str]]:
    """Difference, corrected p and verdict of every row."""
    statements = [map_claims.Statement(**line) for line in lines]
    rows = [line.strip("| ").split(" | ") for line in map_claims.judged(statements, outcomes, pairs).splitlines()[2:]]
    return [(row[4], float(row[-2] or 1), row[-1].strip("*")) for row in rows]


GRPO = runs("grpo", 0.30, 0.33, 0.36, 0.39)
BETTER = {"says": "better", "regime": "turns8", "of": "sdar 0.1", "against": "grpo"}
SAME = {"says": "centred", "regime": "turns8", "of": "centred 1", "against": "grpo"}


def test_statements_are_judged_by_sign_and_by_p_corrected_for_their_number() -> None:
    found = [*GRPO, *runs("sdar", 0.40, 0.44, 0.45, 0.50, coefficient=0.1)]
    found += runs("centred", 0.31, 0.31, 0.37, 0.38, coefficient=1.0)
    ((_, plain, verdict),) = verdicts([BETTER], found)
    assert verdict == "supported"
    both = verdicts([BETTER, SAME], found)
    assert [row[2] for row in both] == ["supported", "undecided"]
    assert both[0][0] == "+10.2"
    assert both[0][1] == pytest.approx(2 * plain, rel=0.05)
    ((_, _, verdict),) = verdicts([BETTER | {"expected": "below"}], found)
    assert verdict == "contradicted"
    # One whose runs are still to come has no row, and counts.
    ((_, corrected, _),) = verdicts([BETTER, SAME | {"of": "centred 3"}], found)
    assert corrected == pytest.approx(2 * plain, rel=0.05)


def test_not_below_allows_for_five_points() -> None:
    worse = [*GRPO, *runs("sdar", 0.27, 0.31, 0.33, 0.37, coefficient=0.1)]  # 2 to 3 points
    ((_, _, verdict),) = verdicts([BETTER | {"expected": "below"}], worse)
    assert verdict == "supported"
    ((_, _, verdict),) = verdicts([BETTER | {"expected": "not_below"}], worse)
    assert verdict == "supported"
    much_worse = [*GRPO, *runs("sdar", 0.20, 0.24, 0.25, 0.29, coefficient=0.1)]
    ((_, _, verdict),) = verdicts([BETTER | {"expected": "not_below"}], much_worse)
    assert verdict == "contradicted"


def test_a_statement_may_be_about_skills_in_the_prompt_or_about_a_curve() -> None:
    tag = "curriculum/gap_mean"
    skilled = runs("skill_grpo", 0.1, 0.2, 0.1, after_with_skills=0.7)
    skilled = [replace(o, curves={tag: [0.1, 0.1 + 0.01 * o.cell.seed + 0.02, 0.5]}) for o in skilled]
    lost = {"says": "lost", "regime": "turns8", "of": "skill_grpo", "figure": "lost_alone"}
    rises = {"says": "rises", "regime": "turns8", "of": "skill_grpo", "figure": tag}
    assert [row[0] for row in verdicts([lost, rises], skilled, pairs=3)] == ["+56.7", "+3.0"]


def test_a_difference_may_be_compared_with_that_of_another_regime_seed_by_seed() -> None:
    def elsewhere(outcomes):
        return [replace(o, cell=replace(o.cell, regime="turns14")) for o in outcomes]

    here = [*GRPO, *runs("sdar", 0.20, 0.22, 0.27, 0.27, coefficient=0.1)]  # 10, 11, 9, 12 below
    there = elsewhere([*GRPO[:3], *runs("sdar", 0.29, 0.31, 0.35, 0.5, coefficient=0.1)])  # 1, 2, 1 below
    line = BETTER | {"expected": "below", "than": "turns14"}
    assert [row[::2] for row in verdicts([line], [*here, *there], pairs=3)] == [("-8.7", "supported")]


def test_a_grid_has_the_best_coefficient_of_every_method() -> None:
    def outcome(method: str, coefficient: float | None, after: float, skilled: float | None = None) -> Any:
        cell = map_cells.Cell("turns8", method, coefficient, 1)
        return map_cells.Outcome(cell, 0.1, 0.4, after, skilled, 120, "abc", 1.0)

    found = [outcome("grpo", None, 0.9)]
    found += [outcome("sdar", 0.1, 0.5, 0.6), outcome("sdar", 1, 0.5, 0.7), outcome("sdar", 3, 0.2)]
    found += [outcome("rlsd", 0.1, 0.4), outcome("rlsd", 1, 0.3)]
    assert map_tables.grid(found).splitlines() == [
        "| turns8 | 0.1 | 1 | 3 |",
        "|---|---|---|---|",
        "| sdar | 50.0 | **50.0** | 20.0 |",
        "",
        "| turns8 | 0.1 | 1 |",
        "|---|---|---|",
        "| rlsd | **40.0** | 30.0 |",
    ]


def test_a_statement_is_not_judged_before_all_its_pairs_are_played() -> None:
    equal = [*GRPO[:2], *runs("sdar", 0.0, 0.03, coefficient=0.1), *runs("centred", 0.4, 0.5, 0.6, 0.7, coefficient=1)]
    found = [*equal, *GRPO[2:]]
    both = verdicts([BETTER | {"expected": "below"}, SAME], found)
    assert [row[2] for row in both] == ["4 pairs are planned", "supported"]
    # It counts among the others as one without runs does.
    assert both[1][1] == verdicts([BETTER | {"of": "sdar 3"}, SAME], found)[0][1]


def test_the_planned_statements_are_about_cells_that_are_played() -> None:
    for name, series in PLAN["series"].items():
        cells = map_cells.cells(name)
        played = {(c.regime, f"{c.method} {c.coefficient:g}" if c.coefficient is not None else c.method) for c in cells}
        for statement in map_claims.statements(series):
            for regime in {statement.regime, statement.than or statement.regime}:
                assert (regime, statement.of) in played
                assert statement.against is None or (regime, statement.against) in played
            assert statement.sign in (-1, 1)


def test_a_runs_curves_are_kept_by_their_ends_and_best() -> None:
    assert the_map.ends([0.0] * 10 + [1.0] * 10 + [0.5] * 10) == [0.0, 0.5, 1.0]
    assert the_map.ends([0.2, 0.4]) == [0.3, 0.3, 0.3]


def test_collected_cells_are_read_back_and_none_is_lost(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(the_map, "DATA", tmp_path)
    monkeypatch.setattr(map_cells, "DATA", tmp_path)
    monkeypatch.setattr(the_map, "ROOT", tmp_path)
    series = next(iter(PLAN["series"]))
    first, second = map_cells.cells(series)[:2]
    template = map_cells.Outcome(first, 0.1, 0.4, 0.2, None, 120, "abc", 1.0)
    found = {first.name: template, second.name: replace(template, cell=second)}
    monkeypatch.setattr(the_map, "_outcome", lambda cell, _folder: found.get(cell.name))
    the_map.collect([first], tmp_path, series)
    assert map_cells.read(series) == [template]
    the_map.collect([second], tmp_path, series)  # elsewhere played, the first is not there
    assert map_cells.read(series) == list(found.values())


def test_a_cell_of_two_series_is_collected_into_both(tmp_path: Path, monkeypatch) -> None:
    for module in (the_map, map_cells):
        monkeypatch.setattr(module, "DATA", tmp_path)
    monkeypatch.setattr(the_map, "ROOT", tmp_path)
    shared = next(cell for cell in map_cells.cells("teachers") if cell in map_cells.cells("claims"))
    template = map_cells.Outcome(shared, 0.1, 0.4, 0.2, None, 120, "abc", 1.0)
    monkeypatch.setattr(the_map, "_outcome", lambda cell, _folder: template if cell == shared else None)
    the_map.collect([shared], tmp_path, "claims")
    monkeypatch.setattr(the_map, "_outcome", lambda _cell, _folder: None)  # its run is not here any more
    the_map.collect(map_cells.cells("teachers"), tmp_path, "teachers")
    assert map_cells.read("teachers") == [template]


def test_a_run_that_was_stopped_is_played_anew_and_a_finished_one_is_not_played(tmp_path: Path, monkeypatch) -> None:
    """As train.py does, the one here refuses a folder that holds a run."""
    code = tmp_path / "train.py"
    code.write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(next(w for w in sys.argv if w.startswith('run_dir=')).removeprefix('run_dir='))\n"
        "if (folder / 'run.json').exists(): sys.exit(2)\n"
        "for name in ('run.json', 'results.json'): (folder / name).write_text(sys.argv[1])\n"
    )
    monkeypatch.setattr(the_map, "ROOT", tmp_path)
    monkeypatch.setattr(the_map, "read_all", list)
    finished, stopped = map_cells.cells("claims")[:2]
    for cell, names in ((finished, ("run.json", "results.json")), (stopped, ("run.json",))):
        (tmp_path / "out" / cell.name).mkdir(parents=True)
        for name in names:
            (tmp_path / "out" / cell.name / name).write_text("before")
    the_map.run([finished, stopped], tmp_path / "out", 1)
    assert (tmp_path / "out" / finished.name / "results.json").read_text() == "before"
    assert (tmp_path / "out" / stopped.name / "results.json").read_text() == f"experiment=map/{stopped.regime}"
    assert float((tmp_path / "out" / stopped.name / the_map.COST).read_text()) >= 0


def test_every_method_of_the_plan_has_a_place_in_the_picture(tmp_path: Path) -> None:
    outcomes = runs("grpo", 0.2, 0.3)
    for method in map_cells.PLAN["methods"]:
        if method != "grpo":
            outcomes += runs(method, 0.3, 0.3, coefficient=1.0)
    map_tables.draw(outcomes, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000
