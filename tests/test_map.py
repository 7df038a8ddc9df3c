"""The map of self-distillation: every cell is a run that there is, seeds are kept apart, and figures are paired."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from sdar.environments.make import ENVIRONMENTS
from sdar.errors import USER_ERROR
from sdar.run.validate import compose

SEEN_BY_THE_DEFAULT = {1, 2, 11, 100, 101}
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
the_map, map_cells, map_claims, map_tables = map(
    importlib.import_module, ("map", "map_cells", "map_claims", "map_tables")
)
sys.path.pop(0)
PLAN = map_cells.PLAN
RESULTS = Path(__file__).parents[1] / "docs" / "results.md"


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


def test_a_table_has_every_coefficient_of_a_method_side_by_side() -> None:
    found = [*runs("grpo", 0.3), *runs("sdar", 0.4, coefficient=1.0), *runs("raw", 0.4, coefficient=1.0)]
    found += runs("sdar", 0.4, coefficient=0.1)  # planned later
    lines = [line.split(" | ")[:2] for line in map_tables.table(found).splitlines() if line.startswith("| ")]
    assert lines[1:] == [["| grpo", ""], ["| sdar", "0.1"], ["| sdar", "1"], ["| raw", "1"]]


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


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the map's records are kept, for once."""
    folder = tmp_path / "data"
    folder.mkdir()
    for module in (the_map, map_cells):
        monkeypatch.setattr(module, "DATA", folder)
    monkeypatch.setattr(the_map, "ROOT", tmp_path)
    return folder


CELL = map_cells.cells("claims")[0]  # of the teachers, too
REVISION = "abc1234"
SUCCESSES = (0.125, 0.25, 1 / 3)


def finished(out: Path, cell: Any = CELL, *, after: float = 0.5, revision: str = REVISION, missing: int = 9) -> None:
    """A run of three iterations, each with 10, 5, 20 and 10 tokens, but for one that is missing from its events."""
    folder = out / cell.name
    folder.mkdir(parents=True)
    rows = [
        {"name": name, "success_rate": rate, "n": 8, "errors": 0}
        for name, rate in (("warm start", 0.25), ("trained", after))
    ]
    results = {"results": rows, "training": {"iterations": len(SUCCESSES), "seconds": 2.5}}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"git": {"revision": revision + "0" * 33}}), encoding="utf-8")
    (folder / the_map.COST).write_text("7.5\n", encoding="utf-8")
    with SummaryWriter(str(folder / "tensorboard")) as events:
        for step, rate in enumerate(SUCCESSES):
            if step != missing:
                events.add_scalar("rollout/success_rate", rate, step)
                for kind, count in (("played", 10), ("scored", 5), ("teacher", 20), ("learned", 10)):
                    events.add_scalar(f"cost/tokens_{kind}", count, step)
                events.add_scalar("cost/flops", 1e9, step)


def record(**figures: object) -> Any:
    """Of the run above, as it was before costs and curves were kept."""
    known = map_cells.Outcome(CELL, 0.25, None, 0.5, None, 8, REVISION, 2.5)
    return replace(known, **figures)


def kept(data: Path, *outcomes: Any, series: str = "claims") -> None:
    rows = ",\n".join(json.dumps(outcome.row()) for outcome in outcomes)
    (data / f"map_{series}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


def test_a_run_is_collected_with_its_tokens_and_with_its_success_by_iteration(data: Path, tmp_path: Path) -> None:
    finished(tmp_path / "out")
    assert the_map.main(["collect", "claims", "--out", str(tmp_path / "out")]) == 0
    (found,) = map_cells.read("claims")
    assert found.tokens == {"played": 30, "scored": 15, "teacher": 60, "learned": 30}
    assert found.success_curve == [0.125, 0.25, 0.3333]
    assert found.cpu_seconds == 7.5
    assert found.curves["rollout/success_rate"][1] == pytest.approx(sum(SUCCESSES) / 3, abs=1e-5)


def test_of_a_run_whose_events_are_not_all_there_no_total_is_kept(data: Path, tmp_path: Path) -> None:
    finished(tmp_path / "out", missing=1)
    the_map.collect([CELL], tmp_path / "out", "claims")
    (found,) = map_cells.read("claims")
    assert found.tokens is None
    assert found.success_curve == []
    assert found.curves["rollout/success_rate"]


def test_a_record_is_completed_from_its_own_run_and_nothing_else_of_it_changes(data: Path, tmp_path: Path) -> None:
    finished(tmp_path / "out")
    before = record(seconds=99.0, curves={"rollout/entropy": [3.0, 2.0, 3.0]})
    kept(data, before)
    the_map.collect([CELL], tmp_path / "out", "claims")
    (found,) = map_cells.read("claims")
    assert (found.cpu_seconds, found.tokens["teacher"], len(found.success_curve)) == (7.5, 60, 3)
    assert replace(found, cpu_seconds=0.0, tokens=None, success_curve=[]) == before
    # What was measured stays, and the other series that has the cell is completed from here.
    kept(data, record(cpu_seconds=3.0), series="teachers")
    the_map.collect([], tmp_path / "nowhere", "teachers")
    (shared,) = map_cells.read("teachers")
    assert shared == replace(record(), cpu_seconds=3.0, tokens=found.tokens, success_curve=found.success_curve)


@pytest.mark.parametrize("other", [{"revision": "0123456"}, {"after": 0.625}, {"before": 0.125}, {"n": 16}], ids=str)
def test_a_record_is_not_completed_from_another_run(other: dict[str, Any], data: Path, tmp_path: Path) -> None:
    finished(tmp_path / "out")
    kept(data, record(**other))
    before = (data / "map_claims.json").read_bytes()
    the_map.collect([CELL], tmp_path / "out", "claims")
    assert (data / "map_claims.json").read_bytes() == before


@pytest.mark.parametrize("series", [name for name in PLAN["series"] if map_cells.file_of(name).exists()])
def test_what_is_recorded_stays_as_it_is_where_no_run_is_left(
    series: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (the_map, map_cells):
        monkeypatch.setattr(module, "DATA", tmp_path / "recorded")
    (tmp_path / "recorded").mkdir()
    for file in RESULTS.with_name("data").glob("map_*.json"):
        (tmp_path / "recorded" / file.name).write_bytes(file.read_bytes())
    before = map_cells.file_of(series).read_bytes()
    the_map.collect(map_cells.cells(series), tmp_path / "nowhere", series)
    assert map_cells.file_of(series).read_bytes() == before


def test_a_table_has_mean_costs_over_the_runs_in_which_they_were_counted() -> None:
    counted = {"played": 1_000_000, "learned": 500_000}
    grpo = runs("grpo", 0.2, 0.4, 0.4, cpu_seconds=90.4, tokens=counted)
    grpo[1] = replace(grpo[1], cpu_seconds=0.0, tokens=None)
    grpo[2] = replace(grpo[2], cpu_seconds=110.0, tokens={**counted, "teacher": 40_000})
    lines = map_tables.table([*grpo, *runs("sdar", 0.3, 0.5, 0.5, coefficient=0.1)]).splitlines()
    assert lines[2].endswith("| 95 % interval | CPU s | tokens, M |")
    assert lines[4] == "| grpo |  | 3 | 33.3 |  |  |  | 100 | 1.52 |"
    assert lines[5].endswith("| +10.0 | equal pairs |  |  |")
    assert len({line.count("|") for line in lines[2:6]}) == 1


def test_filters_choose_cells_by_regime_method_and_seed() -> None:
    def names(*words: Sequence[str]) -> list[str]:
        filters = dict(zip(the_map.FILTERS, words, strict=True))
        return [cell.name for cell in the_map.chosen("claims", filters)]

    assert len(names([], [], [])) == len(map_cells.cells("claims"))
    assert names(["turns8"], ["grpo", "sdar"], ["401", "403"]) == [
        f"turns8-{method}-seed{seed}" for seed in (401, 403) for method in ("grpo", "sdar-0.1", "sdar-1")
    ]


@pytest.mark.parametrize(
    ("option", "known"), [("--regimes", "turns8, webshop"), ("--methods", "grpo, sdar"), ("--seeds", "401, 402")]
)
@pytest.mark.parametrize("what", ["run", "collect", "table", "grid", "show", "compare"])
def test_a_filter_that_names_nothing_is_refused_in_a_sentence(what: str, option: str, known: str, capsys) -> None:
    assert the_map.main([what, "claims", option, "999"]) == USER_ERROR
    told = capsys.readouterr().err
    assert told.startswith(f"error: {option} of claims must be of {known}, ")
    assert told.endswith(", got 999\n")
    assert told.count("\n") == 1


def test_tables_keep_grpo_beside_the_chosen_methods(capsys) -> None:
    assert the_map.main(["table", "claims", "--methods", "sdar", "--regimes", "turns8", "--seeds", "401", "402"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| grpo", "| sdar", "| hybrid"))]
    assert [row.split(" | ")[:3] for row in rows] == [["| grpo", "", "2"], ["| sdar", "0.1", "2"], ["| sdar", "1", "2"]]
    assert " to " in rows[1]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of runs that are played by a stand-in for train.py: it writes down its words."""
    (tmp_path / "train.py").write_text(
        "import json, pathlib, sys\n"
        "folder = pathlib.Path(next(w for w in sys.argv if w.startswith('run_dir=')).removeprefix('run_dir='))\n"
        "(folder / 'results.json').write_text(json.dumps(sys.argv[1:]))\n"
    )
    monkeypatch.setattr(the_map, "ROOT", tmp_path)
    return tmp_path / "out"


def test_cells_that_are_recorded_are_played_again_on_request_and_finished_ones_are_not(
    data: Path, played: Path
) -> None:
    kept(data, record())
    one = ["claims", "--regimes", CELL.regime, "--methods", "grpo", "--seeds", "401", "--out", str(played)]
    assert the_map.main(["run", *one]) == 0
    assert not (played / CELL.name).exists()
    assert the_map.main(["run", *one, "--again"]) == 0
    written = (played / CELL.name / "results.json").stat()
    assert the_map.main(["run", *one, "--again"]) == 0
    assert (played / CELL.name / "results.json").stat() == written


def test_what_is_shown_is_what_is_played_with_the_revision_of_the_record(data: Path, played: Path, capsys) -> None:
    kept(data, record())
    two = ["claims", "--regimes", CELL.regime, "--methods", "grpo", "hybrid", "--seeds", "401", "--out", str(played)]
    the_map.main(["show", *two])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  # ")[2] for line in lines] == [f"revision {REVISION}", ""]
    the_map.main(["run", *two, "--again"])
    for line, name in zip(lines, (CELL.name, "turns8-hybrid-1-seed401"), strict=True):
        words = json.loads((played / name / "results.json").read_text())
        assert shlex.split(line, comments=True) == ["python", "train.py", *words]
        assert words[-2:] == [f"run_dir={played / name}", "threads=1"]


def test_cells_that_were_played_again_are_compared_with_their_records(data: Path, tmp_path: Path, capsys) -> None:
    other = map_cells.cells("claims")[1]
    kept(data, record(), record(cell=other))
    finished(tmp_path / "out", revision="fedcba9")
    finished(tmp_path / "out", other, after=0.375)
    the_map.main(["compare", "claims", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.splitlines() == [
        f"{CELL.name}: 50.0 % recorded (abc1234), 50.0 % again (fedcba9), equal",
        f"{other.name}: 50.0 % recorded (abc1234), 37.5 % again (abc1234), not equal",
        f"2 of 270 cells are in docs/data and in {tmp_path / 'out'}; equal: 1",
    ]


def test_a_difference_of_no_statement_is_taken_pair_by_pair_across_series(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = CELL.seed, CELL.seed + 1
    base = ((first, 0.5), (second, 0.25), (999, 0.5))  # the last is of no seed of the series
    kept(data, *(record(cell=replace(CELL, seed=seed), after=after) for seed, after in base))
    sdar = replace(CELL, method="sdar", coefficient=1)
    others = ((first, 0.6), (second, 0.45), (999, 0.9))
    kept(data, *(record(cell=replace(sdar, seed=seed), after=after) for seed, after in others), series="sizes")
    words = ["difference", "claims", "--regimes", CELL.regime, "--pair"]
    assert the_map.main([*words, "sdar 1", CELL.method]) == 0
    assert capsys.readouterr().out == f"{CELL.regime}: sdar 1 - {CELL.method}: +15.0 (-48.5 to +78.5), 2 pairs\n"
    assert the_map.main([*words, "sdar 3", CELL.method]) != 0
    assert f"--pair must name two cells with runs in {CELL.regime}, got sdar 3 and" in capsys.readouterr().err


@pytest.mark.parametrize("series", PLAN["series"])
def test_the_results_have_the_tables_that_the_data_give(series: str) -> None:
    plan, records = PLAN["series"][series], map_cells.read(series)
    page = RESULTS.with_name("results_screen.md") if series == "screen" else RESULTS
    printed = map_tables.table(records)
    if series == "tuning":
        printed = map_tables.grid(records)
    if planned := map_claims.statements(plan):
        printed += map_claims.judged(planned, records, pairs=len(plan["seeds"]))
    told = set(page.read_text(encoding="utf-8").splitlines())
    assert [line for line in printed.splitlines() if line.startswith("|") and line not in told] == []


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
