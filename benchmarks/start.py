"""What does a run cost before its first iteration, with its start panels played, and with those of an earlier run?

    python benchmarks/start.py [overrides ...]

Three runs one after the other, each a process of its own: one that plays its panels and records nothing, one that plays
and records them, and one that finds the record. Figures are CPU seconds from the process's start to the first
iteration, imports, models and the agents without a model included. The runs' results are compared: they must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from sdar.run.session import Session
from sdar.run.validate import compose

RUNS = {
    "played": "evaluation.reuse_panels=false",
    "played and recorded": "evaluation.reuse_panels=true",
    "from the record": "evaluation.reuse_panels=true",
}


class _BeganError(Exception):
    """The first iteration would begin."""


class _Stop(Callback):
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise _BeganError


def main() -> None:
    """Start the runs and print what they cost."""
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        print(__doc__)
        return
    if sys.argv[1:2] == ["--until"]:
        _until_the_first_iteration(Path(sys.argv[2]), sys.argv[3:])
        return
    overrides = ["threads=1", "logger=none", *sys.argv[1:]]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        shell = os.environ | {"SDAR_CACHE": folder, "OMP_NUM_THREADS": "1"}
        for number, (name, setting) in enumerate(RUNS.items()):
            told = Path(folder) / f"{number}.json"
            run_dir = Path(folder) / f"run{number}"
            run_dir.mkdir()
            run = [setting, f"run_dir={run_dir}", *overrides]
            subprocess.run([sys.executable, __file__, "--until", str(told), *run], env=shell, check=True)
            found[name] = json.loads(told.read_text())
        size = sum(file.stat().st_size for file in Path(folder, "panels").iterdir())
    first = found["played"]
    print(f"\n{'':20} CPU seconds    ratio")
    for name, run in found.items():
        same = "" if run["results"] == first["results"] else "  OTHER RESULTS"
        print(f"{name:20} {run['seconds']:11.1f} {run['seconds'] / first['seconds']:8.3f}{same}")
    print(f"the record has {size / 1e6:.2f} MB")


def _until_the_first_iteration(told: Path, overrides: list[str]) -> None:
    session = Session(compose(overrides), leader=True)
    session.trainer.callbacks.append(_Stop())  # type: ignore[attr-defined]
    try:
        session.run()
    except _BeganError:
        results = [result.to_dict() for result in session.evaluation.results[0]]
        told.write_text(json.dumps({"seconds": time.process_time(), "results": results}))


if __name__ == "__main__":
    main()
