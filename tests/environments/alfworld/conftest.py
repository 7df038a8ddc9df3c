"""Real games for tests that have them, and the scripts' helpers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def packed_alfworld() -> Path:
    """Folder with the packed real games; tests that ask for it are skipped without ``SDAR_TEST_DATA``."""
    data = os.environ.get("SDAR_TEST_DATA")
    folder = Path(data) / "alfworld" if data else None
    if folder is None or not (folder / "games.jsonl.xz").is_file():
        pytest.skip("SDAR_TEST_DATA does not point at a folder with alfworld/games.jsonl.xz")
    return folder
