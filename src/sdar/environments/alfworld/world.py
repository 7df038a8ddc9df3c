"""The generator's knowledge of the ALFRED world: rooms, objects, where objects fit and where they usually are.

The tables are in ``world.yaml``.
"""

from __future__ import annotations

from sdar.environments.facts import facts_beside

_FACTS = facts_beside(__file__)

ROOMS: tuple[str, ...] = _FACTS["rooms"]

LAYOUTS: dict[str, dict[str, tuple[int, int, int]]] = _FACTS["layouts"]
"""Per room and receptacle type: the minimum, the usual maximum, and the maximum in a room of the dataset's size."""

OPENABLE = frozenset[str](_FACTS["openable"])

USUAL_PLACES: dict[str, dict[str, tuple[str, ...]]] = _FACTS["usual_places"]
"""Per room and object type: the receptacle types it is usually in, the most frequent first."""

FITS: dict[str, tuple[str, ...]] = _FACTS["fits"]
"""Receptacle types that an object type fits into."""

HEATABLE = frozenset[str](_FACTS["heatable"])
COOLABLE = frozenset[str](_FACTS["coolable"])
CLEANABLE = frozenset[str](_FACTS["cleanable"])
SLICEABLE = frozenset[str](_FACTS["sliceable"])

ROOMS_OF_TASK: dict[str, tuple[str, ...]] = _FACTS["rooms_of_task"]
"""Rooms of each task type."""

OBJECTS_OF_TASK: dict[str, frozenset[str] | None] = dict.fromkeys(ROOMS_OF_TASK) | {
    "pick_clean_then_place_in_recep": CLEANABLE,
    "pick_heat_then_place_in_recep": HEATABLE,
    "pick_cool_then_place_in_recep": COOLABLE,
}
"""Objects of each task type; None: any object with a usual place in the room."""
