"""Every family of models with every structure of chat templates trains exactly, or is refused and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from toys.asked import ALL
from toys.chat_templates import BY_NAME as STRUCTURES
from toys.chat_templates import Structure
from toys.families import BY_NAME as FAMILIES
from toys.matrix import check_pair, check_shared_beginnings, save_weights

BOTH = ("append", "window")
SAMPLE = list(zip(FAMILIES, list(STRUCTURES) * 9, strict=False))
"""Each family with one structure, and each structure with two families or three."""


@pytest.mark.parametrize(("family", "structure"), SAMPLE, ids=lambda name: name)
def test_a_family_with_a_template(family: str, structure: str, tmp_path: Path) -> None:
    folder = save_weights(tmp_path, FAMILIES[family])
    policy = check_pair(
        folder, FAMILIES[family], STRUCTURES[structure], ("append",) if structure != "harmony" else BOTH
    )
    if policy is not None:
        check_shared_beginnings(policy)


def met(family: str) -> list[Structure]:
    """The templates that a family meets: every sixth, others for its neighbours; all with SDAR_TEST_ALL=1."""
    every = 1 if ALL else 6
    return list(STRUCTURES.values())[list(FAMILIES).index(family) % every :: every]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_templates(family: str, tmp_path: Path) -> None:
    folder = save_weights(tmp_path, FAMILIES[family])
    for structure in met(family):
        try:
            check_pair(folder, FAMILIES[family], structure, BOTH)
        except BaseException as error:
            error.add_note(f"with the template {structure.name}")
            raise


def test_the_matrix_is_as_large_as_it_says() -> None:
    assert len({family.kind for family in FAMILIES.values()}) >= 60
    assert len(STRUCTURES) >= 30
    assert {name for _, name in SAMPLE} == set(STRUCTURES)
    assert {structure.name for family in FAMILIES for structure in met(family)} == set(STRUCTURES)
