"""A newcomer's first hour, timed: ``python scripts/walk.py [--source URL] [--until first|own|change]``.

Types what README, quick start, custom_environment.md and CONTRIBUTING say, in a new folder with a new virtual
environment, and prints what each step took; it ends at the first step that fails. Files of the environment are those of
the page. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SETUP = "set -euo pipefail\n"


@dataclass(frozen=True)
class Step:
    """Something that is typed; ``own``: in a folder of one's own, not in the clone."""

    part: str
    purpose: str
    typed: str
    own: bool = False


def steps(source: str) -> list[Step]:
    """The walk, in order."""
    check, play, train = [command for command in _guide_commands() if "skills" not in command][:3]
    return [
        Step("first", "clone", f"git clone -q {source} clone", own=True),
        Step(
            "first", "install", "python -m venv .venv && . .venv/bin/activate && pip install -q -c constraints.txt -e ."
        ),
        Step("first", "first learning curve", "python train.py environment=arithmetic"),
        Step("first", "its tokens in a page", "sdar episodes logs/sdar/*"),
        Step("own", "an environment of one's own: check", check, own=True),
        Step("own", "watch its expert", play, own=True),
        Step("own", "train on it", train, own=True),
        Step("change", "install what tests need", "pip install -q -c constraints.txt -e '.[dev]'"),
        Step("change", "style and types", "pre-commit run --all-files"),
        Step("change", "tests", "pytest -q -n auto"),
    ]


def _guide() -> str:
    return (ROOT / "docs" / "custom_environment.md").read_text(encoding="utf-8")


def _guide_commands() -> list[str]:
    return re.findall(r"^    (sdar .*)$", re.sub(r"\\\n +", "", _guide()), re.MULTILINE)


def write_environment(folder: Path) -> None:
    """The two files that the page says to save."""
    (folder / "settings" / "environment").mkdir(parents=True)
    for language, name in (("python", "drawers.py"), ("yaml", "settings/environment/drawers.yaml")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", _guide(), re.DOTALL)[:1]
        (folder / name).write_text(block, encoding="utf-8")


def walk(folder: Path, todo: list[Step]) -> Iterator[tuple[Step, float]]:
    """Take the steps; each with its seconds. SystemExit, with the end of what it said: one failed."""
    clone = folder / "clone"
    environ = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    for step in todo:
        active = clone / ".venv" / "bin" / "activate"
        setup = _SETUP + (f". {active}\n" if active.exists() else "") + ("export PYTHONPATH=.\n" if step.own else "")
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", setup + step.typed],
            cwd=folder if step.own else clone,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{step.typed}: exit code {done.returncode}\n{done.stdout[-2000:]}")
        yield step, time.monotonic() - began


def main() -> None:
    """Walk, and print a table of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=str(ROOT), help="what is cloned (this clone)")
    parser.add_argument("--until", choices=("first", "own", "change"), default="change", help="the last part (change)")
    options = parser.parse_args()
    parts = ("first", "own", "change")
    wanted = parts[: parts.index(options.until) + 1]
    print("| for | typed | minutes | since the beginning |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, total = Path(name), 0.0
        write_environment(folder)
        for step, seconds in walk(folder, [step for step in steps(options.source) if step.part in wanted]):
            total += seconds
            print(f"| {step.purpose} | `{step.typed}` | {seconds / 60:.1f} | {total / 60:.1f} |", flush=True)


if __name__ == "__main__":
    main()
