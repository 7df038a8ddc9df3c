"""What the default run of each environment computes, to the last bit: metrics of its first iterations, and weights.

    python benchmarks/fingerprint.py fingerprint.json [--iterations 3] [--root CLONE]     # records
    python benchmarks/fingerprint.py now.json --against fingerprint.json [--tolerance 1e-3]

A change that is not meant to change any figure is made between the two, or with ``--tolerance`` one that may change
their rounding: then the curves that both have are compared, and the largest difference of each is relative to its
value, or to a thousandth where that is less. The figures are those of one machine, its processor's instructions and
library versions: compare on the machine that recorded. Runs take one thread each, about two minutes in all; ``--root``
names another clone to run, whose ``src`` is then imported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ENVIRONMENTS = ("alfworld", "webshop", "search_qa")
CLOCK = ("time/", "throughput/")
"""Tags of figures that depend on the clock."""
SMALL = 1e-3
"""Sums that are zero but for their rounding are less."""


def fingerprint(root: Path, environment: str, folder: Path, iterations: int) -> dict[str, Any]:
    """Run; returns metric -> [step, value as hex] pairs, and the hash of weights and moments."""
    settings = [
        f"trainer.max_epochs={iterations}",
        "evaluation.panel_size=12",
        "evaluation.baselines=false",
        "threads=1",
    ]
    command = [sys.executable, "train.py", f"environment={environment}", f"run_dir={folder}", *settings]
    shell = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    shell["SDAR_CACHE"] = f"{folder}-cache"  # the panel of the start weights is to be played
    subprocess.run(command, cwd=root, env=shell, check=True, stdout=subprocess.DEVNULL)
    return {"metrics": _metrics(folder / "tensorboard"), **_state(folder / "checkpoints" / "last.ckpt")}


def _metrics(folder: Path) -> dict[str, list[tuple[int, str]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(CLOCK)]
    return {tag: [(event.step, float(event.value).hex()) for event in events.Scalars(tag)] for tag in sorted(tags)}


def _state(checkpoint: Path) -> dict[str, str]:
    import torch

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    (optimizer,) = saved["optimizer_states"]
    moments = {f"{n}/{name}": value for n, state in optimizer["state"].items() for name, value in state.items()}
    return {"weights": _hash(saved["state_dict"]), "moments": _hash(moments)}


def _hash(tensors: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not the same, a line each."""
    found = []
    for environment, old in before.items():
        new = now[environment]
        tags = sorted(old["metrics"].keys() | new["metrics"].keys())
        found += [
            f"{environment}: {tag}: {old['metrics'].get(tag)} and {new['metrics'].get(tag)}"
            for tag in tags
            if old["metrics"].get(tag) != new["metrics"].get(tag)
        ]
        found += [f"{environment}: {what}" for what in ("weights", "moments") if old[what] != new[what]]
    return found


def apart(before: dict[str, Any], now: dict[str, Any]) -> dict[str, float]:
    """Largest difference of each curve that both have, relative to its value; infinite where one is not finite."""
    found = {}
    for environment, old in before.items():
        new = now[environment]
        for tag in sorted(old["metrics"].keys() & new["metrics"].keys()):
            one, other = ({step: float.fromhex(value) for step, value in of["metrics"][tag]} for of in (old, new))
            found[f"{environment}: {tag}"] = max(_distance(one[step], other.get(step, math.inf)) for step in one)
    return found


def _distance(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    distance = abs(one - other) / max(abs(one), SMALL)
    return distance if math.isfinite(distance) else math.inf


def main() -> int:
    """0: recorded, and equal where a comparison was asked for; 1: something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--against", type=Path, help="file of an earlier recording")
    parser.add_argument("--tolerance", type=float, help="compare curves up to this relative difference")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="clone to run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, iterations = options.root.resolve(), options.iterations
        now = {name: fingerprint(root, name, Path(folder) / name, iterations) for name in ENVIRONMENTS}
    now = json.loads(json.dumps(now))
    options.out.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    for name, found in now.items():
        print(f"{name}: {len(found['metrics'])} metrics, weights {found['weights']}, moments {found['moments']}")
    if options.against is None:
        return 0
    before = json.loads(options.against.read_text(encoding="utf-8"))
    if options.tolerance is not None:
        found = apart(before, now)
        if not found:
            print("there is no curve that both have")
            return 1
        worst = max(found, key=lambda tag: found[tag])
        print(f"{len(found)} curves that both have; furthest apart: {worst}, {found[worst]:.1e}")
        lines = [f"{tag}: {value:.1e}" for tag, value in found.items() if not value <= options.tolerance]
        print("\n".join(lines) or f"equal up to {options.tolerance:g}")
        return 1 if lines else 0
    lines = differences(before, now)
    print("\n".join(lines) or "equal to the last bit")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
