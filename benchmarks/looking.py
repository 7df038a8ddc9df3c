"""What does looking cost? Board, episode log and curves of a run; the page of its episodes; a report over many runs.

    python benchmarks/looking.py [--run RUN] [--episodes 10000] [--runs 100] [overrides ...]

The first part makes a run in this process, the default one with the given overrides, and measures the time inside the
callbacks that only look, and inside TensorBoard's files, against that of the whole run: two clocks in one process, so
that the ratio does not depend on how fast the machine is. ``--run`` takes a finished run instead and leaves this out.
The second part repeats the run's episodes, opens their page in Chromium where it is installed, and writes its size. The
third copies the run under other seeds and coefficients and reports on the copies.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sdar.callbacks.board.board import Board
from sdar.callbacks.episode_log import EpisodeLog
from sdar.callbacks.skill_log import SkillLog
from sdar.callbacks.tensorboard import Curves
from sdar.commands.front import main as sdar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SEEDS = 10
"""Of each of the methods that the copies make up."""


class Clock:
    """Seconds inside some methods; what one of them calls of another counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = False

    def watch(self, owner: type, *names: str) -> None:
        for name in names:
            setattr(owner, name, self._timed(owner.__name__, getattr(owner, name)))

    def _timed(self, label: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return method(*arguments, **named)
            self._inside, started = True, time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self._inside = False
                self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - started

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run; None: one is made")
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=100)
    arguments, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or _trained(Path(folder) / "run", overrides)
        _sizes(run)
        _episodes(run, Path(folder) / "many", arguments.episodes)
        _report(run, Path(folder), arguments.runs)


def _trained(run: Path, overrides: list[str]) -> Path:
    clock = Clock()
    clock.watch(Board, "on_fit_start", "on_iteration", "on_train_end")
    clock.watch(EpisodeLog, "on_iteration")
    clock.watch(SkillLog, "on_iteration")
    clock.watch(Curves, "log_metrics", "log_hyperparams", "save", "finalize")
    started = time.perf_counter()
    if sdar(["train", f"run_dir={run}", *overrides]) != 0:
        raise SystemExit("the run failed")
    whole = time.perf_counter() - started
    with _timed() as page:
        sdar(["episodes", str(run)])
    with _timed() as report:
        sdar(["report", str(run), f"out={run / 'report'}"])
    seconds = clock.seconds | {"sdar episodes": page[0], "sdar report": report[0]}
    print(f"\nthe whole run: {whole:.1f} s; of these")
    for name, value in seconds.items():
        print(f"  {name:<14} {value:8.3f} s  {value / whole:8.2%}")
    total = sum(seconds.values())
    print(f"  {'together':<14} {total:8.3f} s  {total / whole:8.2%}")
    return run


def _sizes(run: Path) -> None:
    parts = {name: _bytes(run / name) for name in ("tensorboard", "episodes.jsonl", "episodes.html", "report")}
    parts = {name: size for name, size in parts.items() if size}
    print("\n" + "; ".join(f"{name} {size / 1e6:.2f} MB" for name, size in parts.items()))
    print(f"together {sum(parts.values()) / 1e6:.2f} MB")


def _bytes(place: Path) -> int:
    return sum(file.stat().st_size for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file())


def _episodes(run: Path, folder: Path, count: int) -> None:
    """As many episodes, those of the run over and over, in iterations of their own."""
    lines = [json.loads(line) for line in (run / "episodes.jsonl").read_text(encoding="utf-8").splitlines()]
    folder.mkdir()
    with (folder / "episodes.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            one = lines[number % len(lines)] | {"iteration": number // 2}
            file.write(json.dumps(one, ensure_ascii=False) + "\n")
    print(f"\n{count:,} episodes, {_bytes(folder / 'episodes.jsonl') / 1e6:.0f} MB of lines")
    with _timed() as taken:
        sdar(["episodes", str(folder)])
    print(f"written in {taken[0]:.1f} s, {_bytes(folder / 'episodes.html') / 1e6:.1f} MB")
    from toys.chromium import BROWSER, Chromium

    if BROWSER is None:
        print("not opened: Chromium is not installed")
        return
    with Chromium() as browser:
        for _ in range(3):
            browser.open(folder / "episodes.html", "document.body?.dataset.ready", 120)
            print(f"open after {int(browser.run('document.body.dataset.ready')) / 1000:.2f} s")


def _report(run: Path, folder: Path, count: int) -> None:
    logs = folder / "logs"
    for number in range(count):
        _copy(run, logs / f"run-{number:03d}", method=number // SEEDS, seed=number % SEEDS)
    with _timed() as taken:
        sdar(["report", str(logs), f"out={folder / 'report'}"])
    page = _bytes(folder / "report" / "report.html")
    print(f"a report over {count} runs: {taken[0]:.1f} s, {page / 1e6:.2f} MB the page, ", end="")
    print(f"{_bytes(folder / 'report') / 1e6:.2f} MB with its pictures as files")


def _copy(run: Path, copy: Path, *, method: int, seed: int) -> None:
    """The same figures under another seed and another coefficient."""
    copy.mkdir(parents=True)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["seed"] = seed
    config["optimizer"]["learning_rate"] *= 1 + method / 1000
    (copy / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    rate = f"optimizer.learning_rate={config['optimizer']['learning_rate']:g}"
    record |= {"seed": seed, "command": ["sdar", "train", rate, f"seed={seed}"]}
    (copy / "run.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.copy(run / "results.json", copy)
    shutil.copytree(run / "tensorboard", copy / "tensorboard")


@contextmanager
def _timed() -> Iterator[list[float]]:
    taken: list[float] = []
    started = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()
