"""Run folders as a run leaves them, made in a moment."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sdar.run.folder import write_run_folder
from sdar.run.validate import compose

START = datetime(2026, 1, 1)
_TASKS = {"tasks": 960, "content_hash": "t" * 64}


@cache
def settings_of(*overrides: str) -> dict[str, Any]:
    return dict(compose(overrides).config)


def row(name: str, successes: int, n: int = 100) -> dict[str, Any]:
    return {"name": name, "n": n, "successes": successes, "success_rate": successes / n, "errors": 0}


def results(
    before: int = 10,
    after: int = 40,
    skills: tuple[int, int] | None = (50, 60),
    *,
    panel: str = "p" * 64,
    weights: str = "w" * 64,
    iterations: int = 40,
    tasks: Mapping[str, Any] | None = _TASKS,
) -> dict[str, Any]:
    rows = [row("random admissible agent", 0), row("warm start", before)]
    if skills:
        rows.append(row("warm start, with skills", skills[0]))
    rows.append(row("trained", after))
    if skills:
        rows.append(row("trained, with skills", skills[1]))
    record: dict[str, Any] = {
        "panel": {"content_hash": panel},
        "model": {"initial_weights": weights},
        "results": rows,
        "seconds": 600.0,
    }
    if tasks is not None:
        record["training"] = {"iterations": iterations, **tasks}
    return record


def make_run(
    logs: Path,
    overrides: Sequence[str],
    outcome: Mapping[str, Any] | str | None,
    *,
    hours: float = 0,
    checkpoint: bool = False,
) -> Path:
    """A run folder; ``outcome`` None: it has no results (yet); a text: that stands where the results should be."""
    number = len(list(logs.glob("*/run.json")))
    folder = logs / f"run-{number}"
    settings = settings_of(*overrides)
    write_run_folder(folder, settings, started=START + timedelta(hours=hours), command=["x"], resumed_from=None)
    if outcome is not None:
        text = outcome if isinstance(outcome, str) else json.dumps(outcome)
        (folder / "results.json").write_text(text)
    if checkpoint:
        (folder / "checkpoints").mkdir()
        zipfile.ZipFile(folder / "checkpoints" / "last.ckpt", "w").close()
    return folder
