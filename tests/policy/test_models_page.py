"""docs/model_families.md says of every family and template what is found when it is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_are_what_is_found() -> None:
    spec = importlib.util.spec_from_file_location("model_families", ROOT / "scripts" / "model_families.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "model_families.md").read_text(encoding="utf-8")
    assert script.with_tables(page) == page
