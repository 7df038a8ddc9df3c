"""What Lightning's trainer may be told: an iteration is one rollout and what is learned from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdar.config.fields import AtLeastOne, fits
from sdar.config.words import describe, shown
from sdar.errors import UserError

_STEPS = "the module steps its optimizer itself; set optimizer.max_grad_norm and optimizer.episodes_per_step instead"
_LENGTH = (
    "iterations are counted by trainer.max_epochs; set that instead (experiment=smoke is a run of two tiny iterations)"
)
_REFUSED: dict[str, tuple[Any, str]] = {
    "gradient_clip_val": (None, _STEPS),
    "accumulate_grad_batches": (1, _STEPS),
    "max_steps": (-1, _LENGTH),
    "min_steps": (None, _LENGTH),
    "limit_train_batches": (None, _LENGTH),
    "overfit_batches": (0, _LENGTH),
    "fast_dev_run": (False, _LENGTH),
}
"""Argument -> the value that changes nothing, and what to set instead of another."""

_AT_LEAST_ONE = (
    "trainer.max_epochs",
    "trainer.num_nodes",
    "callbacks.checkpoint.every_n_epochs",  # 0 would write no checkpoint at all
)
"""Lightning's own arguments, which state no range."""


def check_trainer(plain: Mapping[str, Any]) -> None:
    """Refuse arguments of the trainer, and of its checkpoint callback, that do not go with the training loop.

    Raises:
        UserError: naming the argument and what to set instead.
    """
    trainer = plain["trainer"]
    for name in ("callbacks", "logger"):
        if name in trainer:
            raise UserError(f"trainer.{name}: set the group {name} instead")
    for name, (harmless, instead) in _REFUSED.items():
        if trainer.get(name, harmless) not in (harmless, None):
            raise UserError(f"trainer.{name}={shown(trainer[name])}: {instead}")
    for path in _AT_LEAST_ONE:
        value: Any = plain
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not fits(value, AtLeastOne):
            raise UserError(f"{path} must be {describe(AtLeastOne)}, got {shown(value)}")
