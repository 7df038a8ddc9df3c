"""The map of self-distillation: where it pays, how strong it must be, and when it does harm.

    python benchmarks/map.py run screen [--jobs 2] [--out logs/map]    # what is missing; Ctrl-C and go on at will
    python benchmarks/map.py collect screen                            # finished cells into docs/data/map_screen.json
    python benchmarks/map.py table screen                              # tables of docs/results.md; the screen's picture
    python benchmarks/map.py grid tuning                               # success by method and coefficient
    python benchmarks/map.py show screen                               # the command of every cell

Cells are listed in ``map.yaml``. Each is a run of ``train.py`` with one thread. Runs of a seed share tasks, warm start
and panel, so differences to GRPO are paired. A finished run is never played twice, a stopped one is played anew.
``collect`` adds to the file that it finds: a machine that has not played a cell keeps those that others have. A cell of
two series is played once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from map_cells import DATA, PLAN, ROOT, SPAN, WARM_STARTS, Cell, Outcome, cells, file_of, read, read_all
from map_claims import judged, statements
from map_tables import draw, grid, table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MADE = "made"
COST = "cpu_seconds.txt"
CURVES = (
    "rollout/success_rate",
    "rollout/entropy",
    "train/grad_norm",
    "curriculum/strongly_gated_fraction",
    "curriculum/endorsed_of_open",
    "curriculum/gap_mean",
)
"""What is kept of a run's curves: the mean of its first and of its last iterations, and the best of any between."""


def main() -> None:
    """Run, collect or show a series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "collect", "table", "grid", "show"))
    parser.add_argument("series", choices=tuple(PLAN["series"]))
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "map")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--regimes", nargs="+", help="of these alone")
    arguments = parser.parse_args()
    wanted = [cell for cell in cells(arguments.series) if not arguments.regimes or cell.regime in arguments.regimes]
    if arguments.what == "run":
        run(wanted, arguments.out, arguments.jobs)
    elif arguments.what == "collect":
        collect(wanted, arguments.out, arguments.series)
    elif arguments.what == "grid":
        print(grid(read(arguments.series)))
    elif arguments.what == "table":
        records = read(arguments.series)
        print(table(records))
        if planned := statements(PLAN["series"][arguments.series]):
            # Their picture: scripts/picture_claims.py
            print(judged(planned, records, pairs=len(PLAN["series"][arguments.series]["seeds"])))
        if arguments.series == "screen":
            draw(records, ROOT / "docs" / "images" / "map_screen.png")
    else:
        for name in dict.fromkeys(cell.warm_start for cell in wanted if cell.warm_start is not None):
            print("python -m sdar.warm_start", *_warm_start(name, arguments.out))
        for cell in wanted:
            print("python train.py", *cell.overrides(arguments.out))


def run(wanted: Sequence[Cell], out: Path, jobs: int) -> None:
    """Play what is missing. A cell that fails is named, and the others go on; exit code 1 in the end."""
    missing = [cell for cell in wanted if not (out / cell.name / "results.json").exists()]
    known = {cell.name for cell in read_all()}
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
    command = [sys.executable, str(ROOT / "train.py"), *cell.overrides(out), f"run_dir={folder}", "threads=1"]
    started = time.monotonic()
    with (folder / "output.log").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=_own_code(), stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    (folder / COST).write_text(f"{usage.ru_utime + usage.ru_stime:.1f}\n")
    process.returncode = os.waitstatus_to_exitcode(status)
    return cell, process.returncode, time.monotonic() - started


def collect(wanted: Sequence[Cell], out: Path, series: str) -> None:
    """Add finished cells to the series' file, and those that another series has already."""
    found = {outcome.name: outcome for outcome in (*read_all(), *read(series))}
    for cell in wanted:
        if cell.name not in found and (outcome := _outcome(cell, out / cell.name)) is not None:
            found[cell.name] = outcome
    order = {cell.name: number for number, cell in enumerate(cells(series))}
    kept = sorted((outcome for outcome in found.values() if outcome.name in order), key=lambda o: order[o.name])
    lines = [json.dumps({**vars(o.cell), **{k: v for k, v in vars(o).items() if k != "cell"}}) for o in kept]
    DATA.mkdir(exist_ok=True)
    file_of(series).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{len(kept)} of {len(order)} cells in {file_of(series).relative_to(ROOT)}")


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
        curves=_curves(folder),
    )


def _cpu_seconds(folder: Path) -> float:
    file = folder / COST
    return float(file.read_text()) if file.exists() else 0.0


def _curves(folder: Path) -> dict[str, list[float]]:
    values: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in set(CURVES) & set(events.Tags()["scalars"]):
            values.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return {tag: ends([value for _, value in sorted(values[tag].items())]) for tag in CURVES if tag in values}


def ends(values: Sequence[float]) -> list[float]:
    """The first, the last and the highest mean over :data:`SPAN` neighbouring values, of which there may be fewer."""
    span = min(SPAN, len(values))
    means = [sum(values[i : i + span]) / span for i in range(len(values) - span + 1)]
    return [round(value, 5) for value in (means[0], means[-1], max(means))]


if __name__ == "__main__":
    main()
