"""The map of self-distillation: where it pays, how strong it must be, and when it does harm.

    python benchmarks/map.py run screen [--jobs 2] [--out logs/map]    # what is missing; Ctrl-C and go on at will
    python benchmarks/map.py collect screen                            # finished cells into docs/data/map_screen.json
    python benchmarks/map.py table screen                              # tables of docs/results.md
    python benchmarks/map.py grid tuning                               # success by method and coefficient
    python benchmarks/map.py show screen                               # the command of every cell
    python benchmarks/map.py run claims --again --methods grpo --seeds 401    # though docs/data has them
    python benchmarks/map.py compare claims                            # cells played again with those of docs/data
    python benchmarks/map.py difference teachers --regimes webshop --pair "sdar_ema 1" "sdar 1"    # of no statement

Cells are listed in ``map.yaml``. Each is a run of ``train.py`` with one thread. Runs of a seed share tasks, warm start
and panel, so differences to GRPO are paired. A finished run is never played twice, a stopped one is played anew.
``collect`` adds to the file that it finds: a machine that has not played a cell keeps those that others have, and what
a record lacks is completed where its run is still there. A cell of two series is played once. Pictures are drawn from
docs/data: the screen's by ``python scripts/picture_map.py docs/images/map_screen.svg``, those of series with statements
by ``scripts/picture_claims.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from map_cells import BASELINE, DATA, PLAN, ROOT, SPAN, WARM_STARTS, Cell, Outcome, cells, file_of, read, read_all
from map_claims import Statement, judged, statements
from map_tables import grid, table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sdar.errors import UserError, command, run_command
from sdar.evaluation.statistics import mean_over_runs

MADE = "made"
COST = "cpu_seconds.txt"
SUCCESS = "rollout/success_rate"
CURVES = (
    SUCCESS,
    "rollout/entropy",
    "train/grad_norm",
    "curriculum/strongly_gated_fraction",
    "curriculum/endorsed_of_open",
    "curriculum/gap_mean",
)
"""What is kept of a run's curves: the mean of its first and of its last iterations, and the best of any between."""
TOKENS = "cost/tokens_"
"""How the tags begin that count an iteration's tokens."""
FILTERS = {"regimes": "regime", "methods": "method", "seeds": "seed"}
"""Options that choose cells, and what of a cell they name."""


@command
def main(arguments: Sequence[str]) -> int:
    """Run, collect or show a series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "collect", "table", "grid", "show", "compare", "difference"))
    parser.add_argument("series", choices=tuple(PLAN["series"]))
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "map")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--again", action="store_true", help="run: cells that docs/data has, too")
    for name in FILTERS:
        parser.add_argument(f"--{name}", nargs="+", default=[], help="of these alone; tables keep GRPO")
    parser.add_argument("--pair", nargs=2, metavar="CELL", help="difference: methods, each with its coefficient")
    parser.add_argument("--figure", choices=("alone", "with_skills", "lost_alone"), default="alone", help="difference")
    options = parser.parse_args(arguments)
    filters = {name: getattr(options, name) for name in FILTERS}
    wanted = chosen(options.series, filters)
    if options.what == "run":
        run(wanted, options.out, options.jobs, again=options.again)
    elif options.what == "collect":
        collect(wanted, options.out, options.series)
    elif options.what == "compare":
        compare(wanted, options.out)
    elif options.what == "difference":
        if options.pair is None:
            raise UserError('--pair must name two cells, such as "sdar_ema 1" "sdar 1", got none')
        difference(wanted, options.pair, options.figure)
    elif options.what == "show":
        show(wanted, options.out)
    else:
        # Differences are taken to GRPO, whatever the methods.
        kept = {*wanted, *chosen(options.series, {**filters, "methods": [BASELINE]})}
        records = [outcome for outcome in read(options.series) if outcome.cell in kept]
        print(grid(records) if options.what == "grid" else table(records))
        planned = statements(PLAN["series"][options.series])
        if options.what == "table" and planned and not any(filters.values()):
            print(judged(planned, records, pairs=len(PLAN["series"][options.series]["seeds"])))
    return 0


def chosen(series: str, filters: Mapping[str, Sequence[str]]) -> list[Cell]:
    """The cells that all filters name; an empty one names all. UserError: one names what the series does not have."""
    found = cells(series)
    for option, names in filters.items():
        known = dict.fromkeys(str(getattr(cell, FILTERS[option])) for cell in cells(series))
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"--{option} of {series} must be of {', '.join(known)}, got {unknown[0]}")
        found = [cell for cell in found if not names or str(getattr(cell, FILTERS[option])) in names]
    return found


def difference(wanted: Sequence[Cell], pair: Sequence[str], figure: str) -> None:
    """Of two methods on the seeds of a series, whichever series have their runs: mean and interval, without a p.

    UserError: a regime does not have both.
    """
    of, against = pair
    for regime in dict.fromkeys(cell.regime for cell in wanted):
        seeds = {cell.seed for cell in wanted if cell.regime == regime}
        values = Statement("", regime, of, against, figure).differences([o for o in read_all() if o.cell.seed in seeds])
        if not values:
            raise UserError(f"--pair must name two cells with runs in {regime}, got {' and '.join(pair)}")
        estimate = mean_over_runs(values)
        low, high = estimate.interval
        print(f"{regime}: {of} - {against}: {estimate.mean:+.1f} ({low:+.1f} to {high:+.1f}), {estimate.n} pairs")


def show(wanted: Sequence[Cell], out: Path) -> None:
    """The commands that ``run`` plays, and the revision of those that docs/data has."""
    for name in dict.fromkeys(cell.warm_start for cell in wanted if cell.warm_start is not None):
        print(shlex.join(["python", "-m", "sdar.warm_start", *_warm_start(name, out)]))
    revisions = {outcome.cell: outcome.revision for outcome in read_all()}
    for cell in wanted:
        made = f"  # revision {revisions[cell]}" if cell in revisions else ""
        print(shlex.join(["python", "train.py", *cell.command(out)]) + made)


def run(wanted: Sequence[Cell], out: Path, jobs: int, *, again: bool = False) -> None:
    """Play what is missing. A cell that fails is named, and the others go on; exit code 1 in the end.

    ``again``  whether cells that docs/data has are played, too; those that are finished in ``out`` never are
    """
    missing = [cell for cell in wanted if not (out / cell.name / "results.json").exists()]
    known = set() if again else {outcome.name for outcome in read_all()}
    missing = [cell for cell in missing if cell.name not in known]
    print(f"{len(wanted)} cells, {len(missing)} to play", flush=True)
    for name in dict.fromkeys(cell.warm_start for cell in missing if cell.warm_start is not None):
        # One that is finished is only measured again, one that was stopped is continued.
        if not (out / WARM_STARTS / name / MADE).exists():
            print(f"training the warm start {name}", flush=True)
            subprocess.run(
                [sys.executable, "-m", "sdar.warm_start", *_warm_start(name, out)], env=_own_code(), check=True
            )
            (out / WARM_STARTS / name / MADE).touch()
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for number, (cell, code, seconds) in enumerate(pool.map(lambda cell: _play(cell, out), missing), start=1):
            print(f"{number} of {len(missing)}: {cell.name}, {seconds:.0f} s, exit code {code}", flush=True)
            failed += [cell.name] if code else []
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see output.log in {out}/NAME")


def _warm_start(name: str, out: Path) -> list[str]:
    return [*PLAN["warm_starts"][name].split(), f"out={out / WARM_STARTS / name}", "threads=1"]


def _own_code() -> dict[str, str]:
    """The environment of a process that runs the code of this clone, whatever is installed, on one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}


def _play(cell: Cell, out: Path) -> tuple[Cell, int, float]:
    folder = out / cell.name
    shutil.rmtree(folder, ignore_errors=True)  # it was stopped: minutes are lost
    folder.mkdir(parents=True)
    words = [sys.executable, str(ROOT / "train.py"), *cell.command(out)]
    started = time.monotonic()
    with (folder / "output.log").open("a") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=_own_code(), stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    (folder / COST).write_text(f"{usage.ru_utime + usage.ru_stime:.1f}\n")
    process.returncode = os.waitstatus_to_exitcode(status)
    return cell, process.returncode, time.monotonic() - started


def collect(wanted: Sequence[Cell], out: Path, series: str) -> None:
    """Add finished cells to the series' file, and those that another series has already.

    A record that is there stays as it is; costs and a curve that it lacks are taken from what is left of its run.
    """
    found: dict[str, Outcome] = {}
    for outcome in (*read_all(), *read(series)):
        found[outcome.name] = outcome.completed(found.get(outcome.name))
    for cell in wanted:
        record = found.get(cell.name)
        if (record is None or not record.whole) and (made := _outcome(cell, out / cell.name)) is not None:
            found[cell.name] = made if record is None else record.completed(made)
    order = {cell.name: number for number, cell in enumerate(cells(series))}
    kept = sorted((outcome for outcome in found.values() if outcome.name in order), key=lambda o: order[o.name])
    lines = [json.dumps(outcome.row()) for outcome in kept]
    DATA.mkdir(exist_ok=True)
    file_of(series).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{len(kept)} of {len(order)} cells in {file_of(series).relative_to(ROOT)}")


def compare(wanted: Sequence[Cell], out: Path) -> None:
    """Success alone of the cells that are finished in ``out``, as docs/data has it and as it is now."""
    recorded = {outcome.cell: outcome for outcome in read_all()}
    verdicts = []
    for cell in wanted:
        if cell in recorded and (now := _outcome(cell, out / cell.name)) is not None:
            then = recorded[cell]
            verdicts.append("equal" if now.after == then.after else "not equal")
            words = [f"{100 * o.after:.1f} % {how} ({o.revision})" for o, how in ((then, "recorded"), (now, "again"))]
            print(f"{cell.name}: {', '.join([*words, verdicts[-1]])}")
    print(f"{len(verdicts)} of {len(wanted)} cells are in docs/data and in {out}; equal: {verdicts.count('equal')}")


def _outcome(cell: Cell, folder: Path) -> Outcome | None:
    results, record = folder / "results.json", folder / "run.json"
    if not results.exists():
        return None
    figures = json.loads(results.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in figures["results"]}
    if any(row["errors"] for row in rows.values()):
        raise SystemExit(f"{folder}: episodes of the panel ended by errors; such a cell is no result")

    def rate(name: str) -> float | None:
        return rows[name]["success_rate"] if name in rows else None

    before, after = rate("warm start"), rate("trained")
    assert before is not None
    assert after is not None
    values = _values(folder)
    every = set(range(figures["training"]["iterations"]))
    # Of an iteration that is missing, a total would be too low.
    complete = {tag: list(found.values()) for tag, found in values.items() if found.keys() == every}
    tokens = {tag.removeprefix(TOKENS): round(sum(complete[tag])) for tag in complete if tag.startswith(TOKENS)}
    return Outcome(
        cell=cell,
        before=before,
        before_with_skills=rate("warm start, with skills"),
        after=after,
        after_with_skills=rate("trained, with skills"),
        n=rows["trained"]["n"],
        revision=str(json.loads(record.read_text(encoding="utf-8"))["git"]["revision"])[:7],
        seconds=figures["training"]["seconds"],
        cpu_seconds=_cpu_seconds(folder),
        curves={tag: ends(list(values[tag].values())) for tag in CURVES if tag in values},
        tokens=tokens or None,
        success_curve=[round(value, 4) for value in complete.get(SUCCESS, ())],
    )


def _cpu_seconds(folder: Path) -> float:
    file = folder / COST
    return float(file.read_text()) if file.exists() else 0.0


def _values(folder: Path) -> dict[str, dict[int, float]]:
    """Of the tags that are kept, by iteration; of an iteration that was played twice, the later ones."""
    values: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in sorted(events.Tags()["scalars"]):
            if tag in CURVES or tag.startswith(TOKENS):
                values.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return {tag: dict(sorted(found.items())) for tag, found in values.items()}


def ends(values: Sequence[float]) -> list[float]:
    """The first, the last and the highest mean over :data:`SPAN` neighbouring values, of which there may be fewer."""
    span = min(SPAN, len(values))
    means = [sum(values[i : i + span]) / span for i in range(len(values) - span + 1)]
    return [round(value, 5) for value in (means[0], means[-1], max(means))]


if __name__ == "__main__":
    run_command(main)
