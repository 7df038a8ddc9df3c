"""Every program of the repository says what it takes, and does nothing else where that is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


INTERNAL = {"src/sdar/policy/template_trial.py"}
"""Started by the code alone, which speaks to them over pipes."""


def programs() -> list[str]:
    """Files that can be started, relative to the repository."""
    folders = ("scripts", "benchmarks", "examples", "src")
    files = [*ROOT.glob("*.py"), *(file for name in folders for file in (ROOT / name).rglob("*.py"))]
    started = {str(file.relative_to(ROOT)) for file in files if '\nif __name__ == "__main__":\n' in file.read_text()}
    return sorted(started - INTERNAL)


@pytest.mark.slow
@pytest.mark.parametrize("program", programs())
def test_help_says_what_a_program_takes(program: str, tmp_path: Path) -> None:
    file = Path(program)
    module = ".".join(file.with_suffix("").parts[1:]) if file.parts[0] == "src" else None
    started = ["-m", module.removesuffix(".__main__")] if module is not None else [str(ROOT / file)]
    done = subprocess.run(
        [sys.executable, *started, "--help"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 60
    assert not list(tmp_path.iterdir())
