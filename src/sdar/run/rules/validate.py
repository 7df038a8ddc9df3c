"""Everything that can be said about a configuration before any work is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdar.config.targets import check_arguments, check_node, is_node, shown
from sdar.errors import UserError
from sdar.learning.step_plan import check_step_settings
from sdar.run.folder import LAST_CHECKPOINT
from sdar.run.rules.distillation import check_distillation, check_teacher
from sdar.run.rules.mirrors import check_mirrors
from sdar.run.rules.processes import check_processes
from sdar.run.rules.schema import PLAIN_GROUPS, RANGES, RunSettings

PROVIDED: dict[str, tuple[str, ...]] = {
    "collector": ("policy", "environment", "reserved_tokens", "generator_factory"),
    "module": ("policy", "teacher"),
    "datamodule": ("collector", "environment", "teacher"),
    "trainer": ("callbacks", "logger"),
}
"""Constructor parameters that the program fills in, by node."""

_FIRST = ("gate", "divergence", "schedule", "retrieval")
"""Nodes that others refer to: a mistake in them is told where it was made."""

_NOT_FOUND = re.compile(r"Environment variable '(\w+)' not found")
"""What OmegaConf says of ``${oc.env:NAME}``."""

_EMPTY_ALLOWED = frozenset({"callbacks", "logger"})


def validate(config: DictConfig) -> dict[str, Any]:
    """Check a composed configuration and return it as plain dicts, interpolations resolved.

    Raises:
        UserError: the first mistake found, in one sentence.
    """
    settings = _resolved(config)
    check_arguments(RunSettings, settings, "", deep=False)
    check_teacher(settings)
    for path in _FIRST:
        check_node(_at(settings, path), path, ranges=RANGES)
    for path, schema in PLAIN_GROUPS.items():
        check_arguments(schema, _at(settings, path), path, ranges=RANGES)
    check_mirrors(settings)
    for path, value in settings.items():
        if path in PLAIN_GROUPS or not isinstance(value, Mapping):
            continue
        if is_node(value):
            check_node(value, path, provided=PROVIDED.get(path, ()), ranges=RANGES)
        elif path in _EMPTY_ALLOWED:
            _check_nodes(value, path)
        else:
            raise UserError(f"{path}={shown(value)}: it has no _target_, so nothing can be built from it")
    _check_together(settings)
    return settings


def _resolved(config: DictConfig) -> dict[str, Any]:
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=VALUE")
        settings = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        if variable := _NOT_FOUND.search(str(error)):
            raise UserError(
                f"{error.full_key} is not set: give {error.full_key}=VALUE, or {variable[1]}=VALUE in the shell"
            ) from error
        where = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"{where}the value cannot be resolved: {str(error).splitlines()[0]}") from error
    return cast("dict[str, Any]", settings)


def _at(settings: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        raise UserError(f"{path}={shown(value)}: allowed is a group of settings")
    return value


def _check_nodes(nodes: Mapping[str, Any], path: str) -> None:
    for name, node in nodes.items():
        if node is None:
            continue  # switched off from the command line
        if not is_node(node):
            raise UserError(f"{path}.{name}={shown(node)}: allowed is null or a mapping with _target_")
        check_node(node, f"{path}.{name}", ranges=RANGES)


def _check_together(settings: Mapping[str, Any]) -> None:
    """Checks that need more than one setting."""
    _check_checkpoint(settings)
    _check_adapters(settings["model"])
    _check_trainer(settings["trainer"])
    check_distillation(settings)
    check_step_settings(
        statistics=settings["statistics"]["kind"],
        context=settings["rollout"]["context"],
        episodes_per_step=settings["module"].get("episodes_per_step"),
        rows_per_step=settings["module"].get("rows_per_step"),
        micro_batch_rows=settings["statistics"]["micro_batch_rows"],
    )
    _check_filters(settings["rollout"]["sampling"])
    check_processes(settings)


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse what makes of an iteration something else than one rollout and what is learned from it."""
    steps = (
        "the module steps its optimiser itself; allowed is to leave it out and to set module.max_grad_norm and "
        "module.episodes_per_step"
    )
    length = (
        "iterations are counted by trainer.max_epochs; allowed is to leave it out (experiment=smoke is a run of two "
        "tiny iterations)"
    )
    for name, harmless, why in (
        ("gradient_clip_val", None, steps),
        ("accumulate_grad_batches", 1, steps),
        ("max_steps", -1, length),
        ("min_steps", None, length),
        ("limit_train_batches", None, length),
        ("overfit_batches", 0, length),
        ("fast_dev_run", False, length),
    ):
        if trainer.get(name, harmless) not in (harmless, None):
            raise UserError(f"trainer.{name}={shown(trainer[name])}: {why}")


def _check_filters(sampling: Mapping[str, Any]) -> None:
    """Log-probs are those of the whole distribution: sampled from a filtered one, every ratio would be wrong."""
    for name, unfiltered in (("top_p", 1), ("top_k", 0)):
        if sampling.get(name, unfiltered) != unfiltered:
            raise UserError(
                f"rollout.sampling.{name}={shown(sampling[name])}: training samples from the whole distribution; "
                f"allowed is {unfiltered} (evaluation.sampling may filter)"
            )


def _check_checkpoint(settings: Mapping[str, Any]) -> None:
    path = settings["ckpt_path"]
    if path is None or path == "last":
        return
    if not Path(path).exists():
        raise UserError(f"ckpt_path={path}: there is no such file; allowed is a checkpoint, 'last' or null")
    if Path(path).is_dir():
        inside = next((file for file in (Path(path) / LAST_CHECKPOINT, Path(path) / "last.ckpt") if file.is_file()), "")
        told = f"the file {inside}" if inside else "a file, a run's checkpoints/last.ckpt"
        raise UserError(f"ckpt_path={path}: it is a folder; allowed is {told}, 'last' or null")


def _check_adapters(model: Mapping[str, Any]) -> None:
    if model.get("lora") is not None:
        from sdar.policy.lora import LoraSettings

        check_arguments(LoraSettings, model["lora"], "model.lora", ranges=RANGES)
