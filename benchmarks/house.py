"""What the house costs to live in: lines, loose modules, imports, and CPU-seconds until a command has answered.

    python benchmarks/house.py

CPU-seconds are the least of five starts of a new process, its children included.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "sdar"

ANSWERS = {
    "train.py --help": ["train.py", "--help"],
    "train.py gate.beta=five": ["train.py", "gate.beta=five"],
    "train.py algorithm=sdra": ["train.py", "algorithm=sdra"],
    "train.py trainer.max_epoch=3": ["train.py", "trainer.max_epoch=3"],
    **{
        f"sdar {name} --help": ["-m", "sdar", name, "--help"]
        for name in ("train", "play", "compare", "episodes", "report", "export", "skills", "check", "search-server")
    },
}


def cpu_seconds(arguments: list[str], starts: int = 5) -> float:
    """The least CPU time of several starts."""
    best = float("inf")
    for _ in range(starts):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    with contextlib.redirect_stdout(io.StringIO()):
        import test_rooms as rooms
    files = list(SOURCE.rglob("*.py"))
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    edges = [(one, other) for one, others in rooms.EDGES.items() for other in others]
    upwards = [(one, other) for one, other in edges if rooms.floor(other) < rooms.floor(one)]
    functions = sum(
        isinstance(node, ast.FunctionDef) for file in files for node in ast.walk(ast.parse(file.read_text()))
    )
    print(f"src/sdar: {len(files)} files, {lines} lines, {functions} functions")
    print(f"loose modules: {len(rooms.LOOSE)}; floors: {len(rooms.FLOORS)}; imports that run upwards: {len(upwards)}")
    print("CPU-seconds until it has answered:")
    for name, arguments in ANSWERS.items():
        print(f"  {name:<30} {cpu_seconds(arguments):.2f}", flush=True)


if __name__ == "__main__":
    main()
