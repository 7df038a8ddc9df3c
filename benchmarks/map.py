"""The map of self-distillation: where it pays, how strong it must be, and when it does harm.

    python benchmarks/map.py run screen [--jobs 2] [--out logs/map]    # what is missing; Ctrl-C and go on at will
    python benchmarks/map.py collect screen                            # finished cells into docs/data/map_screen.json
    python benchmarks/map.py table screen                              # the table of docs/results.md, and the picture
    python benchmarks/map.py show screen                               # the command of every cell

Cells are listed in ``map.yaml``. Each is a run of ``train.py`` with one thread. Runs of a seed share tasks, warm start
and panel, so differences to GRPO are paired. A finished run is never played twice, a stopped one is continued.
``collect`` adds to the file that it finds: a machine that has not played a cell keeps those that others have.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sdar.evaluation.statistics import Estimate, bootstrap_mean, holm, mean_over_runs, p_value

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "data"
PLAN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
BASELINE = "grpo"
WARM_STARTS, MADE = "warm_starts", "made"
COST = "cpu_seconds.txt"
SPAN = 10
"""Iterations at the beginning and at the end of a run over which a curve is averaged."""
CURVES = (
    "rollout/success_rate",
    "rollout/entropy",
    "train/grad_norm",
    "curriculum/strongly_gated_fraction",
    "curriculum/endorsed_of_open",
    "curriculum/gap_mean",
)
"""What is kept of a run's curves: the mean of its first and of its last iterations, and the best of any between."""


@dataclass(frozen=True)
class Cell:
    """A method with a coefficient (None: it has none) in a regime, on one seed."""

    regime: str
    method: str
    coefficient: float | None
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        strength = "" if self.coefficient is None else f"-{self.coefficient:g}"
        return f"{self.regime}-{self.method}{strength}-seed{self.seed}"

    @property
    def warm_start(self) -> str | None:
        """Name of the model that the regime starts from, where it is not a shipped one."""
        regime = PLAN["regimes"].get(self.regime)
        return None if regime is None else str(regime["warm_start"])

    def overrides(self, out: Path) -> list[str]:
        """Of ``train.py``; ``out`` has the warm starts that are not shipped."""
        experiment = self.regime if self.warm_start is None else PLAN["regimes"][self.regime]["experiment"]
        method = PLAN["methods"][self.method]
        if self.coefficient is not None:
            place = method if "COEFFICIENT" in method else f"{method} {PLAN['coefficient']}=COEFFICIENT"
            method = place.replace("COEFFICIENT", f"{self.coefficient:g}")
        words = [f"experiment=map/{experiment}", *method.split(), f"seed={self.seed}"]
        return words if self.warm_start is None else [*words, f"model.path={out / WARM_STARTS / self.warm_start}"]


def cells(series: str) -> list[Cell]:
    """All cells of a series, seed by seed within each block, so that whole pairs are there early."""
    chosen = PLAN["series"][series]
    return [
        Cell(regime, method, coefficient, seed)
        for block in chosen["cells"]
        for seed in chosen["seeds"]
        for regime in block["regimes"]
        for method, coefficients in block["methods"].items()
        for coefficient in coefficients
    ]


def main() -> None:
    """Run, collect or show a series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "collect", "table", "show"))
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
    elif arguments.what == "table":
        records = read(arguments.series)
        print(claims(records) if PLAN["series"][arguments.series].get("claims") else table(records))
        draw(records, ROOT / "docs" / "images" / f"map_{arguments.series}.png")
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
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "train.py"), *cell.overrides(out), f"run_dir={folder}", "threads=1"]
    if (folder / "checkpoints").exists():
        command.append("ckpt_path=last_or_new")
    started = time.monotonic()
    with (folder / "output.log").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=_own_code(), stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    with (folder / COST).open("a") as file:
        file.write(f"{usage.ru_utime + usage.ru_stime:.1f}\n")  # a line for every time that the run was continued
    process.returncode = os.waitstatus_to_exitcode(status)
    return cell, process.returncode, time.monotonic() - started


@dataclass(frozen=True)
class Outcome:
    """What became of a cell. Success rates in [0, 1] over the panel of ``n`` tasks.

    ``seconds`` are those of training, and mean little where other work went on; ``cpu_seconds`` are those of the whole
    run, panels included, 0 where they were not counted.

    ``curves`` has the first, the last and the highest mean over :data:`SPAN` iterations of each of :data:`CURVES` that
    the run has.
    """

    cell: Cell
    before: float
    before_with_skills: float | None
    after: float
    after_with_skills: float | None
    n: int
    revision: str
    seconds: float
    cpu_seconds: float = 0.0
    curves: dict[str, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the cell."""
        return self.cell.name


def collect(wanted: Sequence[Cell], out: Path, series: str) -> None:
    """Add finished cells to the series' file."""
    found = {outcome.name: outcome for outcome in read(series)}
    for cell in wanted:
        if cell.name not in found and (outcome := _outcome(cell, out / cell.name)) is not None:
            found[cell.name] = outcome
    order = {cell.name: number for number, cell in enumerate(cells(series))}
    kept = sorted((outcome for outcome in found.values() if outcome.name in order), key=lambda o: order[o.name])
    lines = [json.dumps({**vars(o.cell), **{k: v for k, v in vars(o).items() if k != "cell"}}) for o in kept]
    DATA.mkdir(exist_ok=True)
    _file(series).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{len(kept)} of {len(order)} cells in {_file(series).relative_to(ROOT)}")


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
    return sum(map(float, file.read_text().split())) if file.exists() else 0.0


def _curves(folder: Path) -> dict[str, list[float]]:
    values: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):  # one for every time that the run was continued
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in set(CURVES) & set(events.Tags()["scalars"]):
            values.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return {tag: ends([value for _, value in sorted(values[tag].items())]) for tag in CURVES if tag in values}


def ends(values: Sequence[float]) -> list[float]:
    """The first, the last and the highest mean over :data:`SPAN` neighbouring values, of which there may be fewer."""
    span = min(SPAN, len(values))
    means = [sum(values[i : i + span]) / span for i in range(len(values) - span + 1)]
    return [round(value, 5) for value in (means[0], means[-1], max(means))]


def _file(series: str) -> Path:
    return DATA / f"map_{series}.json"


def read(series: str) -> list[Outcome]:
    """The cells of a series' file; [] where there is none."""
    if not _file(series).exists():
        return []
    keys = ("regime", "method", "coefficient", "seed")
    rows = json.loads(_file(series).read_text(encoding="utf-8"))
    return [
        Outcome(Cell(**{key: row[key] for key in keys}), **{k: v for k, v in row.items() if k not in keys})
        for row in rows
    ]


def read_all() -> Iterator[Outcome]:
    """Of all series."""
    for series in PLAN["series"]:
        yield from read(series)


@dataclass(frozen=True)
class Row:
    """A cell of the map over its seeds: its success, and the paired difference to GRPO in the same regime (points)."""

    regime: str
    method: str
    coefficient: float | None
    after: Estimate
    with_skills: float | None
    difference: Estimate | None
    pairs: list[float] = field(default_factory=list)


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """One per regime, method and coefficient, in the order in which they came."""
    groups: dict[tuple[str, str, float | None], dict[int, Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        groups.setdefault((cell.regime, cell.method, cell.coefficient), {})[cell.seed] = outcome
    found = []
    for (regime, method, coefficient), by_seed in groups.items():
        base = groups.get((regime, BASELINE, None), {})
        pairs = [100 * (o.after - base[seed].after) for seed, o in by_seed.items() if seed in base]
        skilled = [100 * o.after_with_skills for o in by_seed.values() if o.after_with_skills is not None]
        found.append(
            Row(
                regime=regime,
                method=method,
                coefficient=coefficient,
                after=mean_over_runs([100 * o.after for o in by_seed.values()]),
                with_skills=sum(skilled) / len(skilled) if skilled else None,
                difference=mean_over_runs(pairs) if pairs and method != BASELINE else None,
                pairs=pairs,
            )
        )
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a table per regime."""
    parts = []
    found = rows(outcomes)
    for regime in dict.fromkeys(row.regime for row in found):
        start = next(o for o in outcomes if o.cell.regime == regime)
        skilled = "" if start.before_with_skills is None else f", {100 * start.before_with_skills:.1f} % with skills"
        parts.append(f"### {regime}: {100 * start.before:.1f} % alone before training{skilled}\n")
        parts.append("| method | coefficient | n | alone, % | with skills, % | minus GRPO, points | 95 % interval |")
        parts.append("|---|---|---|---|---|---|---|")
        for row in (row for row in found if row.regime == regime):
            strength = "" if row.coefficient is None else f"{row.coefficient:g}"
            with_skills = "" if row.with_skills is None else f"{row.with_skills:.1f}"
            difference = ["", ""]
            if row.difference is not None:
                low, high = row.difference.interval
                span = f"{low:+.1f} to {high:+.1f}" if row.difference.n > 1 else "one pair"
                difference = [f"{row.difference.mean:+.1f}", span]
            words = [row.method, strength, str(row.after.n), f"{row.after.mean:.1f}", with_skills, *difference]
            parts.append(f"| {' | '.join(words)} |")
        parts.append("")
    return "\n".join(parts)


def claims(outcomes: Sequence[Outcome]) -> str:
    """Markdown: every difference to GRPO with both intervals, and Holm's correction over all of them."""
    found = [row for row in rows(outcomes) if row.difference is not None]
    corrected = holm([p_value(row.pairs) for row in found])
    lines = [
        "| regime | method | coefficient | pairs | alone, % | minus GRPO, points | 95 %, Student's t | 95 %, bootstrap "
        "| p, Holm over the table |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, p in zip(found, corrected, strict=True):
        assert row.difference is not None
        spans = [estimate.interval for estimate in (row.difference, bootstrap_mean(row.pairs))]
        strength = "" if row.coefficient is None else f"{row.coefficient:g}"
        words = [row.regime, row.method, strength, str(row.difference.n), f"{row.after.mean:.1f}"]
        words += [f"{row.difference.mean:+.1f}", *(f"{low:+.1f} to {high:+.1f}" for low, high in spans), f"{p:.2g}"]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Difference to GRPO over the coefficient, a panel per regime and a line per method."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    found = rows(outcomes)
    regimes = list(dict.fromkeys(row.regime for row in found))
    methods = [m for m in PLAN["methods"] if any(row.method == m and row.difference is not None for row in found)]
    if not methods:
        return
    colours: dict[str, Any] = dict(zip(methods, plt.get_cmap("tab20")(range(20)), strict=False))
    columns = min(len(regimes), 3)
    lines = -(-len(regimes) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.4 * lines), sharey=True, squeeze=False)
    for axis, regime in zip(axes.flat, regimes, strict=False):
        axis.axhline(0, color="black", linewidth=0.8)
        for method in methods:
            points = [r for r in found if r.regime == regime and r.method == method and r.difference is not None]
            points = sorted(points, key=lambda row: row.coefficient or 1.0)
            if points:
                values = [row.difference.mean for row in points if row.difference is not None]
                axis.plot([r.coefficient or 1.0 for r in points], values, "o-", color=colours[method], label=method)
        axis.set(xscale="log", title=regime, xlabel="distillation coefficient")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(regimes) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("success alone, points above GRPO")
    handles = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=5, fontsize="small", frameon=False)
    figure.tight_layout(rect=(0, 0.05 + 0.02 * (len(handles) // 5), 1, 1))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
