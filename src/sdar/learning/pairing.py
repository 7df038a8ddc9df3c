"""Whether a module and a data module that were made in Python belong together; on the command line they always do."""

from __future__ import annotations

from typing import Any

from torch import nn

from sdar.errors import UserError
from sdar.learning.datamodule import RolloutDataModule
from sdar.learning.method import Method
from sdar.rollout.settings import RolloutSettings
from sdar.teacher.base import Teacher

_LEARNED_BY = ("context", "sampling.temperature", "backend")
"""Settings of rollouts that decide how tokens are scored. They must be those of the rollouts."""
_DRAWN_BY = ("tasks_per_iteration", "group_size", "resample_rounds", "keep_equal_groups")
"""Settings by which a data module asks its collector for episodes."""


def check_pair(
    model: nn.Module, method: Method, teacher: Teacher | None, rollout: RolloutSettings, data: RolloutDataModule
) -> None:
    """Refuse a data module whose episodes a module with these parts would learn something else from.

    Raises:
        UserError: it plays with another model or other settings, has another teacher, or its collector plays another
            environment.
    """
    collector = data.collector
    if collector.policy.model is not model:
        raise UserError(
            "SDARModule and RolloutDataModule must have the same policy, got two models, and the one that plays would "
            "never be trained; pass one LanguageModel to Collector and SDARModule"
        )
    if collector.environment.name != data.environment.name:
        raise UserError(
            "RolloutDataModule and its Collector must have the same environment, got "
            f"{data.environment.name!r} for the tasks and {collector.environment.name!r} to play them; pass one object "
            "to both"
        )
    names = _LEARNED_BY if collector.settings.backend == "own" else (*_LEARNED_BY, "vllm.importance_cap")
    for name in names:
        played, learned = _value(collector.settings, name), _value(rollout, name)
        if played != learned:
            raise UserError(
                f"SDARModule must learn with the settings that episodes are played with, got rollout.{name}={learned} "
                f"for {played}; pass the collector's RolloutSettings to SDARModule, or none"
            )
    for name in _DRAWN_BY:
        drawn, played = _value(data.rollout, name), _value(collector.settings, name)
        if drawn != played:
            raise UserError(
                f"RolloutDataModule and its Collector must have the same RolloutSettings, got rollout.{name}={drawn} "
                f"and {played}; pass one object to both"
            )
    reads = data.privileged is not None
    if method.skills_in_prompt != reads:
        raise UserError(
            f"SDARModule and RolloutDataModule must have the same method, got skills_in_prompt="
            f"{method.skills_in_prompt} and {reads}; pass one Method to both"
        )
    if data.teacher is not None and data.teacher is not teacher:
        other = "none" if teacher is None else "another one"
        raise UserError(
            f"SDARModule and RolloutDataModule must have the same teacher, got {other} and a "
            f"{type(data.teacher).__name__}; pass one object to both"
        )


def _value(settings: RolloutSettings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
