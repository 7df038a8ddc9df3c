"""A model that takes a moment, for whole runs that are many."""

from __future__ import annotations

from pathlib import Path

import pytest
from points import SMALL

from toys.models import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def small(tiny: Path) -> list[str]:
    """The settings that all runs share."""
    return [*SMALL, f"model.path={tiny}"]
