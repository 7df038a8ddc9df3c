"""Settings that were called otherwise in earlier versions: refused by a sentence that says how they are called now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdar.errors import UserError

_OPTIMIZER = (
    "learning_rate",
    "weight_decay",
    "betas",
    "warmup_steps",
    "max_grad_norm",
    "episodes_per_step",
    "rows_per_step",
)
_ROLLOUT = ("context", "history_turns", "max_prompt_tokens", "max_concurrent_episodes", "sampling")
_COUNTS = ("tasks_per_iteration", "group_size", "resample_rounds", "keep_equal_groups")
_METHOD = ("objective", "score_teacher", "advantage", "shaping", "supervision")

RENAMED = {
    **{f"module.{name}": f"optimizer.{name}" for name in _OPTIMIZER},
    "module.token_budget": "optimizer.max_tokens_per_micro_batch",
    "module.temperature": "rollout.sampling.temperature",
    "module.context": "rollout.context",
    "module.schedules": "schedule",
    "module.statistics": "loss_aggregation",
    "module.micro_batch_rows": "loss_aggregation.micro_batch_rows",
    **{f"module.{name}": f"algorithm.{name}" for name in _METHOD},
    **{f"collector.{name}": f"rollout.{name}" for name in _ROLLOUT},
    **{f"datamodule.{name}": f"rollout.{name}" for name in _COUNTS},
    "datamodule.seed": "seed",
    "datamodule.skills_in_prompt": "algorithm.skills_in_prompt",
    "statistics.kind": "loss_aggregation",
    "statistics.micro_batch_rows": "loss_aggregation.micro_batch_rows",
    "module": "optimizer",
    "collector": "rollout",
    "datamodule": "rollout",
    "teacher.analyser": "teacher.analyzer",
}
"""Old name -> new name."""

_VALUES = {
    ("statistics", "release"): "loss_aggregation=reference_code",
    ("statistics", "episode"): "loss_aggregation=token_mean",
    ("gate.entropy_scale", "normalised"): "gate.entropy_scale=normalized",
}
"""Old setting and value -> the new ones."""

_MOVED = {
    "sdar.supervision": "sdar.learning.supervision",
    "sdar.strategies": "sdar.learning.strategies",
    "sdar.teacher.hindsight.RuleAnalyser": "sdar.teacher.hindsight.RuleAnalyzer",
    "sdar.teacher.hindsight.PolicyAnalyser": "sdar.teacher.hindsight.PolicyAnalyzer",
}
"""Beginning of an old ``_target_`` -> that of the new one."""


def check_renamed(config: DictConfig) -> None:
    """Refuse old names in a composed configuration, wherever they come from.

    Raises:
        UserError: naming the old setting and the new one.
    """
    known = dict(_settings(OmegaConf.to_container(config, resolve=False), ""))
    for (name, value), new in _VALUES.items():
        if known.get(name) == value:
            raise UserError(f"{name}={value} is now {new}")
    for old, new in RENAMED.items():
        if old in known:
            raise UserError(f"{old} is now {new}")
    for name, value in known.items():
        if name.endswith("_target_") and isinstance(value, str):
            for old, new in _MOVED.items():
                if value == old or value.startswith(f"{old}."):
                    raise UserError(f"{name}={value} is now {new}{value.removeprefix(old)}")


def _settings(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted path, groups among them."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _settings(inner, f"{path}.{name}" if path else str(name))
