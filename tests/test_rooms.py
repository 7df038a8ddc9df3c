"""Promises of the structure: rooms on floors, imports that run downwards, no circle (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sdar

SOURCE = Path(sdar.__file__).parent

FLOORS = (
    ("commands", "__main__"),
    ("compare", "warm_start", "look", "serving"),
    ("run",),
    ("callbacks",),
    ("learning",),
    ("teacher",),
    ("evaluation",),
    ("rollout",),
    ("policy",),
    ("environments", "skills", "objective"),
    ("config", "episode", "exchange", "files", "randomness", "processes"),
    ("errors",),
    ("output",),
)
"""From top to bottom: a room may import from lower floors; rooms on one floor form no circle."""

LOOSE = {"episode", "errors", "exchange", "files", "processes", "randomness"}


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name below ``sdar`` -> its syntax tree."""
    files = [file for file in SOURCE.rglob("*.py") if "aliases" not in file.parts and file.parent != SOURCE / "configs"]
    return {
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(file.read_text())
        for file in files
    }


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of ours that a module imports, inside functions and for the type checker as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sdar":
            yield from (f"{node.module}.{alias.name}".removeprefix("sdar.") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("sdar.") for alias in node.names if alias.name.startswith("sdar."))


def target(name: str) -> str:
    """The module that a dotted name lies in."""
    while name not in modules() and "." in name:
        name = name.rpartition(".")[0]
    return name


@cache
def edges() -> dict[str, list[str]]:
    """Module -> the modules that it imports."""
    return {
        name: sorted({target(other) for other in imported(tree)} - {name, "__version__"})
        for name, tree in modules().items()
        if name != "__init__"  # what it offers is imported when it is asked for
    }


def floor(name: str) -> int:
    room = name.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_module_has_its_floor() -> None:
    rooms = {name.split(".")[0] for name in modules()} - {"__init__"}
    assert rooms == {room for rooms in FLOORS for room in rooms}


def test_few_modules_are_loose() -> None:
    assert {file.stem for file in SOURCE.glob("*.py")} - {"__init__", "__main__"} == LOOSE


def test_no_import_runs_upwards() -> None:
    upwards = [
        f"{name} imports {other}" for name, others in edges().items() for other in others if floor(other) < floor(name)
    ]
    assert upwards == []


def test_rooms_on_the_same_floor_form_no_circle() -> None:
    across = {
        (name.split(".")[0], other.split(".")[0])
        for name, others in edges().items()
        for other in others
        if name.split(".")[0] != other.split(".")[0]
    }
    assert {(one, other) for one, other in across if (other, one) in across} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in edges().get(name, ()):
            visit(other)
        path.pop()
        done.add(name)

    for name in edges():
        visit(name)


@pytest.mark.parametrize("room", ["environments", "skills"])
def test_environments_and_skills_know_no_torch(room: str) -> None:
    """Workers of environments start quickly, and so does what looks at skills; dense retrieval needs an encoder."""
    for name, tree in modules().items():
        if name.split(".")[0] == room and name != "environments.search_qa.dense":
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not {one for one in names if one.split(".")[0] in ("torch", "lightning", "transformers")}, name
