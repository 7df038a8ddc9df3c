"""Our package as a wheel installs it, with packages of a user's beside it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def install(site: Path, project: str | None = None) -> None:
    """Lay out sdar in a folder for packages, and the metadata of another distribution by its ``pyproject.toml``.

    ``SDAR_TEST_WHEEL`` names a folder into which a wheel of sdar was installed; without it the sources are laid out so.
    """
    ignored = shutil.ignore_patterns("*_seed*")
    wheel = os.environ.get("SDAR_TEST_WHEEL")
    shutil.copytree(Path(wheel) / "sdar" if wheel else ROOT / "src" / "sdar", site / "sdar", ignore=ignored)
    if not wheel:
        shutil.copytree(ROOT / "configs", site / "sdar" / "configs")
    if project is None:
        return
    known = tomllib.loads(project)["project"]
    info = site / f"{known['name']}-{known['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {known['name']}\nVersion: {known['version']}\n")
    groups = ((group, names) for group, names in known["entry-points"].items())
    lines = (line for group, names in groups for line in (f"[{group}]", *(f"{n} = {v}" for n, v in names.items())))
    (info / "entry_points.txt").write_text("\n".join(lines))


def run(command: str, folder: Path, *more: str, path: str) -> str:
    """What a command line of a page prints, in a folder, with the packages of ``path``; it has to succeed."""
    program, *arguments = shlex.split(command)
    assert program == "sdar"
    done = subprocess.run(
        [sys.executable, "-m", "sdar", *arguments, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
