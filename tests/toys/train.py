"""Stands for ``train.py`` in the tests of launching: leaves a run folder in a moment, and misbehaves as it is told.

    python fake_train.py WHERE setting=value ...

``WHERE`` is a folder with ``settings.json`` (overrides -> composed settings) and ``behaviour.json`` (text that an
override line holds -> what to do); each call appends a line to ``calls.jsonl`` there.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from datetime import datetime
from pathlib import Path

from sdar.run.folder import STATE_FILE, occupied, write_record, write_run_folder

COMPARISON = ("run_dir=", "ckpt_path=")


def main() -> None:
    where = Path(sys.argv[1])
    overrides = sys.argv[2:]
    given = dict(text.split("=", 1) for text in overrides)
    plain = [text for text in overrides if not text.startswith(COMPARISON)]
    settings = json.loads((where / "settings.json").read_text())[key_of(plain)] | {"run_dir": given["run_dir"]}
    settings["callbacks"]["checkpoint"]["directory"] = f"{given['run_dir']}/checkpoints"
    with (where / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"overrides": overrides, "threads": os.environ.get("OMP_NUM_THREADS")}) + "\n")
    behaviour = json.loads((where / "behaviour.json").read_text())
    told = next((what for text, what in behaviour.items() if text in overrides), "")
    if "ckpt_path" in given and told == "refuse":
        sys.exit(2)
    folder = Path(given["run_dir"])
    write_run_folder(folder, settings, started=datetime.now(), command=overrides, resumed_from=None)
    write_record(folder / STATE_FILE, {"iteration": 1, "of": 2})
    if told == "fail":
        print("error: the weights are gone", file=sys.stderr)
        sys.exit(3)
    if told == "wait":
        with occupied(folder):
            (folder / "checkpoints").mkdir()
            zipfile.ZipFile(folder / "checkpoints" / "last.ckpt", "w").close()
            (where / f"waiting{settings['seed']}").write_text(str(os.getpid()))
            time.sleep(600)
    success = 40 + settings["seed"] + (5 if settings["algorithm"]["name"] == "sdar" else 0)
    rows = [("warm start", 10), ("trained", success)]
    results = {
        "panel": {"content_hash": "q" * 64 if told == "other panel" else "p" * 64},
        "model": {"initial_weights": "w" * 64},
        "training": {
            "iterations": settings["trainer"]["max_epochs"],
            "tasks": 12,
            "content_hash": "t" * 64,
            "seconds": 1.0,
        },
        "results": [{"name": name, "n": 100, "successes": count, "errors": 0} for name, count in rows],
    }
    if told == "half a record":
        (folder / "results.json").write_text('{"panel": ')
    elif told != "nothing":
        write_record(folder / "results.json", results)


def key_of(overrides: list[str]) -> str:
    """How a line of settings is looked up; threads are the launcher's business."""
    return " ".join(sorted(text for text in overrides if not text.startswith("threads=")))


if __name__ == "__main__":
    main()
