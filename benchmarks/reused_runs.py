"""Runs of ``train.py`` that a benchmark makes once and uses again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sdar.run.folder import is_occupied

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ROOT / "train.py"


def make(wanted: Mapping[Path, Sequence[str]], jobs: int) -> None:
    """Make the runs that are missing, ``jobs`` at a time: folder -> its overrides.

    SystemExit, before anything starts, where a folder has a run with other overrides; and in the end where runs have
    failed. A run that was stopped is made anew.
    """
    for folder, overrides in wanted.items():
        if is_occupied(folder):
            raise SystemExit(f"error: another process works in {folder}; wait for it, or set --out")
        if (folder / "results.json").exists() and (known := _overrides_of(folder)) != list(overrides):
            wanted_words = " ".join(overrides)
            raise SystemExit(f"error: {folder} has a run with {' '.join(known)}, not {wanted_words}; set --out")
    missing = [folder for folder in wanted if not (folder / "results.json").exists()]
    with ThreadPoolExecutor(jobs) as pool:
        codes = pool.map(lambda folder: _train(folder, wanted[folder]), missing)
        failed = [folder.name for folder, code in zip(missing, codes, strict=True) if code]
    if failed:
        raise SystemExit(f"error: failed: {', '.join(failed)}; see NAME.log beside their folders")


def _overrides_of(folder: Path) -> list[str]:
    """What a run was started with, without what every run here has."""
    command = json.loads((folder / "run.json").read_text(encoding="utf-8"))["command"]
    words = [str(word) for word in command if "=" in str(word)]
    return [word for word in words if word.partition("=")[0] not in ("run_dir", "threads")]


def _train(folder: Path, overrides: Sequence[str]) -> int:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with folder.with_name(f"{folder.name}.log").open("w") as log:
        command = [sys.executable, str(TRAIN), *overrides, f"run_dir={folder}", "threads=1"]
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    state = f"FAILED with exit code {code}, see {log.name}" if code else "done"
    print(f"{folder.name}: {state} after {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return code
