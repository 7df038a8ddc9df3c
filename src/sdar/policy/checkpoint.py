"""What a checkpoint records about its run, and loading the student's weights alone.

Frozen weights (the reference of the KL term, the model under adapters) are not in a checkpoint: they are the run's
initial weights, which the configuration names. The checkpoint records their hash to detect other initial weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sdar.errors import UserError
from sdar.policy.checkpoint_file import NUMBERS, first_not_finite, read_checkpoint
from sdar.policy.language_model import LanguageModel

CHECKPOINT_KEY = "sdar"
"""Key of the record in the checkpoint."""
OPTIMIZER_KEY = "sdar_optimizer"
"""Where a checkpoint names the kind of its optimizer."""


def origin(policy: LanguageModel) -> dict[str, Any]:
    """The record: name, class, content hash and storage of the run's initial model, and its adapter settings."""
    return {
        "model": policy.name,
        "architecture": policy.architecture,
        "initial_weights": policy.content_hash,
        "quantization": policy.quantization,
        "lora": None if policy.lora is None else policy.lora.record(),
    }


def check_origin(checkpoint: Mapping[str, Any], policy: LanguageModel) -> None:
    """UserError unless the checkpoint's run started from the model, weights and adapters of ``policy``."""
    found = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(found, Mapping) or "initial_weights" not in found:
        raise UserError("ckpt_path must be a checkpoint written by sdar")
    own = origin(policy)
    model, other = f"this run trains {policy.name!r}", f"ckpt_path names a checkpoint of {found.get('model')!r}"
    # Checkpoints of earlier versions record neither architecture nor adapters; those runs trained all weights.
    if found.get("architecture", own["architecture"]) != own["architecture"]:
        raise UserError(
            f"{other} ({found['architecture']}), but {model} ({own['architecture']}); they must be the same model"
        )
    if found.get("quantization") != own["quantization"]:
        raise UserError(
            f"{other} with {_stored(found.get('quantization'))}, but {model} with {_stored(own['quantization'])}; "
            "model.quantization must be the same"
        )
    if found["initial_weights"] != own["initial_weights"]:
        raise UserError(
            f"{other} with the initial weights {found['initial_weights']!r}, but {model} with the initial weights "
            f"{own['initial_weights']!r}; they must be the same"
        )
    if found.get("lora") != own["lora"]:
        raise UserError(
            f"{other} with {_adapters(found.get('lora'))}, but {model} with {_adapters(own['lora'])}; model.lora must "
            "be the same"
        )


def weights_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights in a checkpoint; UserError: there are none."""
    saved = checkpoint.get("state_dict")
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise UserError("ckpt_path names a checkpoint without weights (state_dict)")
    return saved


def keep_trained(checkpoint: dict[str, Any], module: nn.Module, policy: LanguageModel) -> None:
    """Remove the frozen weights from a checkpoint of adapters, in place."""
    if policy.lora is not None:
        names = _trained(module)
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}


def check_parameters(checkpoint: Mapping[str, Any], module: nn.Module, policy: LanguageModel) -> None:
    """UserError unless a checkpoint holds the parameters that the module has, of the same shapes, all finite.

    Of a checkpoint of adapters that is exactly what the module trains.
    """
    saved = weights_of(checkpoint)
    if policy.lora is not None and set(saved) != _trained(module):
        raise UserError(
            f"ckpt_path names a checkpoint whose adapters do not match those of {policy.name!r} with "
            f"{_adapters(policy.lora.record())}"
        )
    own = module.state_dict()
    for name in sorted(saved.keys() | (own.keys() if policy.lora is None else set())):
        ours, theirs = (None if name not in held else tuple(held[name].shape) for held in (own, saved))
        if ours != theirs:
            raise UserError(
                f"ckpt_path names a checkpoint that does not fit {policy.name!r}: {name} must be {_shape(ours)}, got "
                f"{_shape(theirs)}"
            )
    if broken := first_not_finite({key: checkpoint[key] for key in NUMBERS if key in checkpoint}):
        raise UserError(f"ckpt_path names a checkpoint in which {broken} is not finite; take an earlier one")


def load_student(module: nn.Module, policy: LanguageModel, path: str | Path) -> None:
    """Load a checkpoint's weights into the module that holds ``policy``, without a trainer.

    Only tensors and plain values are unpickled. UserError: the file cannot be read, or belongs to another run.
    """
    checkpoint = read_checkpoint(path)
    check_origin(checkpoint, policy)
    check_parameters(checkpoint, module, policy)
    module.load_state_dict(checkpoint["state_dict"], strict=policy.lora is None)


def finished_iterations(checkpoint: Mapping[str, Any]) -> int:
    """Iterations finished in a checkpoint, whether it was saved at the end of an iteration or of the run.

    UserError: it does not say so, so that training cannot continue from it.
    """
    try:
        finished = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
        if finished < 0:
            raise ValueError(finished)
        return finished
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            "ckpt_path names a checkpoint without a trainer's progress; set train=false to evaluate its weights"
        ) from error


def check_optimizer(checkpoint: Mapping[str, Any], kind: str) -> None:
    """UserError unless the checkpoint's optimizer is of that kind: it has no moments for another one."""
    found = checkpoint.get(OPTIMIZER_KEY, "adamw")  # all there was in earlier versions
    if found != kind:
        raise UserError(
            f"ckpt_path names a checkpoint of a run with optimizer={found}, but this run has optimizer={kind}, which "
            "has no use for its moments; they must be the same"
        )


def check_training_state(checkpoint: Mapping[str, Any], groups: Sequence[Sequence[Tensor]]) -> None:
    """UserError unless training can continue: the state of one optimizer and of its schedule.

    ``groups``: the parameters of the optimizer that it must fit, group by group.
    """
    try:
        (optimizer,), (schedule,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
        keys = [group["params"] for group in optimizer["param_groups"]]
        whole = "pytorch-lightning_version" in checkpoint and "callbacks" in checkpoint
        whole = whole and isinstance(schedule["last_epoch"], int)
        fits = list(map(len, keys)) == list(map(len, groups)) and all(
            shape == tuple(parameter.shape)
            for group, parameters in zip(keys, groups, strict=True)
            for key, parameter in zip(group, parameters, strict=True)
            for shape in _moment_shapes(optimizer["state"].get(key, {}))
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        whole = fits = False
    if not (whole and fits):
        raise UserError(
            "ckpt_path names a checkpoint without the state of this run's optimizer and schedule, so that training "
            "cannot continue from it; set train=false to evaluate its weights"
        )


_MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "momentum_buffer", "state1", "state2"})
"""What optimizers of torch and bitsandbytes call the tensors that have a parameter's shape."""


def _moment_shapes(state: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Shapes of the moments of one parameter, those one level below included."""
    nested = [value for value in state.values() if isinstance(value, Mapping)]
    return [tuple(part[name].shape) for part in (state, *nested) for name in sorted(_MOMENTS & part.keys())]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {list(shape)}"


def _trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def _stored(quantization: Any) -> str:
    return "whole weights" if quantization is None else f"quantized weights ({quantization})"


def _adapters(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "all weights trained (model.lora=null)"
    return f"model.lora={{{', '.join(f'{name}: {value}' for name, value in record.items())}}}"
