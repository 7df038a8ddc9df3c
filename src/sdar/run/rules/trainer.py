"""What Lightning's trainer may be told: an iteration is one rollout and what is learned from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge

from sdar.config.fields import AtLeastOne, Count, Positive, fits
from sdar.config.words import describe, shown
from sdar.errors import UserError

_STEPS = "the module steps its optimizer itself; set optimizer.max_grad_norm and optimizer.episodes_per_step instead"
_LENGTH = (
    "iterations are counted by trainer.max_epochs; set that instead (experiment=smoke is a run of two tiny iterations)"
)
_PANEL = "weights are evaluated as the group evaluation says; set evaluation.every_n_iterations or panel_size instead"
_TASKS = "the data module deals out the tasks itself; leave it out"
_NOTHING = "it has no effect here; leave it out"
_REFUSED: dict[str, tuple[Any, str]] = {
    "gradient_clip_val": (None, _STEPS),
    "gradient_clip_algorithm": (None, _STEPS),
    "accumulate_grad_batches": (1, _STEPS),
    "max_steps": (-1, _LENGTH),
    "min_steps": (None, _LENGTH),
    "limit_train_batches": (None, _LENGTH),
    "overfit_batches": (0, _LENGTH),
    "fast_dev_run": (False, _LENGTH),
    "limit_val_batches": (None, _PANEL),
    "limit_test_batches": (None, _PANEL),
    "limit_predict_batches": (None, _PANEL),
    "val_check_interval": (None, _PANEL),
    "check_val_every_n_epoch": (1, _PANEL),
    "num_sanity_val_steps": (0, _PANEL),
    "use_distributed_sampler": (False, _TASKS),
    "reload_dataloaders_every_n_epochs": (0, _TASKS),
    "enable_checkpointing": (None, "callbacks.checkpoint says what is saved; set callbacks.checkpoint=null instead"),
    "default_root_dir": (None, "a run writes to its own folder; set run_dir instead"),
    "barebones": (False, "it would switch off what records the run; leave it out"),
    "sync_batchnorm": (False, _NOTHING),
    "model_registry": (None, _NOTHING),
}
"""Argument -> the value that changes nothing, and what to set instead of another."""

_RANGES: dict[str, Any] = {
    "max_epochs": AtLeastOne,
    "min_epochs": AtLeastOne | None,
    "num_nodes": AtLeastOne,
    "log_every_n_steps": AtLeastOne | None,
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "profiler": Literal["simple", "advanced", "pytorch"] | None,
}
_STRATEGIES = Literal["auto", "ddp"]
_FOREIGN_STRATEGY = re.compile(r"lightning\..*\.(?!(DDP|SingleDevice)Strategy$)\w+")
_CALLBACK_RANGES: dict[str, Any] = {
    "patience": Count,
    "every_n_epochs": AtLeastOne | None,  # 0 would write no checkpoint at all
    "every_n_train_steps": AtLeastOne | None,
    "save_top_k": Annotated[int, Ge(-1)],
    "refresh_rate": AtLeastOne,
    "max_depth": Annotated[int, Ge(-1)],
}
"""Lightning's own arguments, which state no range, or take more than this program can use."""

_LOOPS = ("GradientAccumulationScheduler", "StochasticWeightAveraging", "LearningRateFinder", "BatchSizeFinder")
"""Lightning's callbacks that step or change the optimizer of its own loop."""
_WEIGHTS = ("WeightAveraging", "EMAWeightAveraging", "ModelPruning", "BaseFinetuning", "BackboneFinetuning")
"""Those that change the weights. Callbacks do not count when it is asked whether two runs are the same."""

_TIME = re.compile(r"\d+:([01]\d|2[0-3]):[0-5]\d:[0-5]\d")


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
    _check_ranges({"max_epochs": None, **trainer}, _RANGES, "trainer")
    if (trainer.get("min_epochs") or 0) > trainer["max_epochs"]:
        raise UserError(
            f"trainer.min_epochs must be <= trainer.max_epochs={trainer['max_epochs']}, got {trainer['min_epochs']}"
        )
    _check_strategy(trainer.get("strategy", "auto"))
    _check_time(trainer.get("max_time"))
    for name, node in plain["callbacks"].items():
        if isinstance(node, Mapping) and str(node.get("_target_")).startswith("lightning."):
            _check_ranges(node, _CALLBACK_RANGES, f"callbacks.{name}")
            if node["_target_"].rpartition(".")[2] in _LOOPS:
                raise UserError(f"callbacks.{name}._target_={node['_target_']}: {_STEPS}")
            if node["_target_"].rpartition(".")[2] in _WEIGHTS:
                raise UserError(
                    f"callbacks.{name}._target_={node['_target_']}: callbacks must leave the weights alone (runs that "
                    "differ only in callbacks count as the same); leave it out"
                )


def _check_ranges(settings: Mapping[str, Any], ranges: Mapping[str, Any], path: str) -> None:
    for name, hint in ranges.items():
        value = settings.get(name)
        if name in settings and not isinstance(value, Mapping) and not fits(value, hint):
            raise UserError(f"{path}.{name} must be {describe(hint)}, got {shown(value)}")


def _check_strategy(value: Any) -> None:
    named = isinstance(value, Mapping)
    if _FOREIGN_STRATEGY.fullmatch(str(value.get("_target_"))) if named else not fits(value, _STRATEGIES):
        raise UserError(f"trainer.strategy must be {describe(_STRATEGIES)}, or as in trainer=fsdp2, got {shown(value)}")


def _check_time(value: Any) -> None:
    if isinstance(value, Mapping):
        units = {"weeks", "days", "hours", "minutes", "seconds"}
        right = bool(value) and units >= value.keys() and all(fits(number, Positive) for number in value.values())
    else:
        right = value is None or (isinstance(value, str) and _TIME.fullmatch(value) is not None)
        right = right and value != "00:00:00:00"
    if not right:
        raise UserError(
            "trainer.max_time must be DD:HH:MM:SS, as in 00:12:00:00, or a mapping such as {hours: 12}, above 0, "
            f"got {shown(value)}"
        )
