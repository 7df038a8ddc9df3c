"""Strategies that wait for gaps nobody measures, or that no part of the teacher would ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.errors import UserError

_DEFAULT = {"_target_": "sdar.skills.retrieval.KeywordRetrieval", "general": True}
"""``retrieval=keyword``, which methods and teachers without skills leave standing."""


def check_retrieval(plain: Mapping[str, Any]) -> None:
    """Refuse a strategy without effect.

    A method without a teacher's scores may have any: so it can be compared with others under the same settings.

    Raises:
        UserError: naming the two settings.
    """
    teacher, retrieval = plain["teacher"], plain["retrieval"]
    if retrieval.get("reward") == "gap_on_success" and not plain["algorithm"]["score_teacher"]:
        raise UserError(
            "retrieval.reward=gap_on_success needs gaps, but algorithm.score_teacher=false measures none; set "
            "retrieval.reward=return, or algorithm.score_teacher=true"
        )
    if teacher is None or retrieval == _DEFAULT:
        return
    if all("retrieval" not in node for node in (teacher, *(teacher.get("parts") or {}).values())):
        raise UserError(
            f"retrieval={_told(retrieval)} has no effect: this teacher ({_told(teacher)}) reads no skills; set "
            "retrieval=keyword with retrieval.general=true, the default, or teacher=skills"
        )


def _told(node: Mapping[str, Any]) -> str:
    """The class that a node builds, and its settings that are plain values."""
    plain = [f"{name}={value}" for name, value in node.items() if isinstance(value, bool | int | float)]
    return ", ".join([str(node["_target_"]).rpartition(".")[2], *plain])
