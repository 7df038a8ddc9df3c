"""Settings that objects take from another place: there they are set, and nowhere else.

``configs/train.yaml`` hands a choice to every object that needs it. An object whose copy were another would sample,
score and count by different rules, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.config.targets import shown
from sdar.errors import UserError

MIRRORS: dict[str, dict[str, str]] = {
    "collector": {
        "sampling": "rollout.sampling",
        "max_concurrent_episodes": "rollout.max_concurrent_episodes",
        "context": "rollout.context",
        "history_turns": "rollout.history_turns",
        "max_prompt_tokens": "rollout.max_prompt_tokens",
    },
    "module": {
        "objective": "algorithm.objective",
        "score_teacher": "algorithm.score_teacher",
        "advantage": "algorithm.advantage",
        "shaping": "algorithm.shaping",
        "supervision": "algorithm.supervision",
        "temperature": "rollout.sampling.temperature",
        "schedules": "schedule",
        "statistics": "statistics.kind",
        "micro_batch_rows": "statistics.micro_batch_rows",
        "context": "rollout.context",
    },
    "datamodule": {
        "tasks_per_iteration": "rollout.tasks_per_iteration",
        "group_size": "rollout.group_size",
        "seed": "seed",
        "skills_in_prompt": "algorithm.skills_in_prompt",
        "resample_rounds": "rollout.resample_rounds",
        "keep_equal_groups": "rollout.keep_equal_groups",
    },
}
"""Node -> its setting -> where that is taken from."""

_NOTHING = object()


def check_mirrors(settings: Mapping[str, Any]) -> None:
    """Refuse a copy that is not what it is a copy of.

    Raises:
        UserError: naming both settings.
    """
    for node, copies in MIRRORS.items():
        for name, source in copies.items():
            own, original = _at(settings, f"{node}.{name}"), _at(settings, source)
            if own != original:
                stated = "is left out" if own is _NOTHING else f"is {_told(own)}"
                raise UserError(
                    f"{node}.{name} {stated}, but it is taken from {source}{_given(original)}; allowed is to set "
                    f"{source} alone"
                )


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = value.get(name, _NOTHING) if isinstance(value, Mapping) else _NOTHING
    return value


def _given(value: Any) -> str:
    return "" if isinstance(value, Mapping) or value is _NOTHING else f"={shown(value)}"


def _told(value: Any) -> str:
    return "another group of settings" if isinstance(value, Mapping) else shown(value)
