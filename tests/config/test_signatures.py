"""Promises of reading signatures from source: the same parameters as Python's own, and nothing is imported."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest
import yaml

from sdar.config.signatures import find, signature
from sdar.config.sources import config_folder


def targets(value: Any) -> set[str]:
    """Every ``_target_`` in a configuration."""
    if isinstance(value, dict):
        own = {value["_target_"]} if "_target_" in value else set()
        return own.union(*map(targets, value.values()))
    return set().union(*map(targets, value)) if isinstance(value, list) else set()


TARGETS = sorted(set().union(*(targets(yaml.safe_load(file.read_text())) for file in config_folder().rglob("*.yaml"))))


@pytest.mark.parametrize("target", TARGETS)
def test_parameters_are_those_that_python_sees(target: str) -> None:
    source = find(target)
    assert source is not None
    found: Any = importlib.import_module(source.module.name)
    for name in source.qualname.split("."):
        found = getattr(found, name)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    real = {name: one for name, one in inspect.signature(found).parameters.items() if one.kind in kinds}
    read = signature(source).parameters
    assert list(read) == list(real)
    assert {name for name, one in read.items() if one.required} == {
        name for name, one in real.items() if one.default is inspect.Parameter.empty
    }


@pytest.mark.e2e
def test_nothing_heavy_is_imported_to_refuse_a_setting() -> None:
    code = (
        "import sys\n"
        "from sdar.commands.train import main\n"
        "code = main(['gate.beta=five'])\n"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code != 2 or heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


MISSING = ["sdar.nothing", "sdar.objective.gate", "sdar.objective.gate.GapGat", "nowhere.Thing", "x"]


@pytest.mark.parametrize("target", MISSING)
def test_what_is_not_defined_is_not_found(target: str) -> None:
    assert find(target) is None
