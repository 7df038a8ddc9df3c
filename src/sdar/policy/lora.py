"""Low-rank adapters (LoRA) on a frozen model, by peft.

Peft injects its layers in place, so the model stays the same object of the same class, and its decoder and output head
are found as before. With the adapters off it is bit for bit the loaded model, so it serves as the reference of the KL
term without a second copy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sdar.config.fields import AtLeastOne, BelowOne, Positive, settings
from sdar.errors import UserError
from sdar.policy.trainable import trainable

ALL_LINEAR = "all-linear"
_ADAPTER = "default"


@settings(frozen=True)
class LoraSettings:
    """Setting ``model.lora``.

    ``rank``            of each update
    ``alpha``           an update is scaled by alpha / rank
    ``dropout``         of an adapter's input, during the update only; drawn from (seed, iteration, optimizer step,
                        micro-batch, rank). Above 0 the ratio of the first optimizer step is no longer exactly 1,
                        because old log-probs are scored without dropout
    ``target_modules``  names (or ends of dotted names) of linear layers; all-linear: all but the output head
    """

    rank: AtLeastOne = 16
    alpha: Positive = 32.0
    dropout: BelowOne = 0.0
    target_modules: Sequence[str] | str = ALL_LINEAR

    def record(self) -> dict[str, Any]:
        """As plain values, for checkpoints."""
        targets = self.target_modules
        return asdict(self) | {"target_modules": targets if isinstance(targets, str) else list(targets)}


def add_adapters(model: PreTrainedModel, settings: LoraSettings, name: str) -> None:
    """Freeze the model and add adapters, in place; they change nothing yet (their second factor is 0).

    The adapters are float32 regardless of the model's dtype, so small steps are not lost. Their initial values depend
    only on the architecture and the settings. ``name`` is the model's, for messages.

    Raises:
        UserError: peft is not installed, or a target matches no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise UserError(
            f"model.lora={settings.record()} needs peft, which is not installed: pip install 'sdar[lora]'"
        ) from error
    _check_targets(model, settings, name)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides it by the rank; a fraction works, too
        lora_dropout=settings.dropout,
        target_modules=settings.record()["target_modules"],
        exclude_modules=_odd_layers(model),
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for parameter in trainable(model):
        parameter.data = parameter.data.float()
    model.train(False)


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model as it was loaded, inside the context."""
    layers = _adapter_layers(model)
    for layer in layers.values():
        layer.enable_adapters(enabled=False)
    try:
        yield model
    finally:
        for layer in layers.values():
            layer.enable_adapters(enabled=True)


def merge_adapters(model: PreTrainedModel) -> None:
    """Merge the updates into the frozen weights and remove the adapters, in place. This cannot be undone."""
    layers = _adapter_layers(model)
    # Innermost first: each parameter of a layer of experts has an adapter of its own, and one wraps the other.
    for name in sorted(layers, key=lambda path: path.count("."), reverse=True):
        layer = layers[name]
        layer.merge(safe_merge=True)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.get_base_layer())


def adapter_updates(model: PreTrainedModel) -> dict[str, Callable[[], torch.Tensor]]:
    """What merging would add to each weight, by the name that the weight has without adapters; empty without them."""
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for path, layer in _adapter_layers(model).items():
        # Experts have their adapters on a parameter of the layer, one wrapper each.
        weight = getattr(layer, "parameter_name", "weight")
        found[f"{path.replace('.base_layer', '')}.{weight}"] = partial(layer.get_delta_weight, _ADAPTER)
    return found


def take_adapters(model: PreTrainedModel, trained: PreTrainedModel) -> None:
    """Copy the adapters of another model of the same architecture, whose frozen weights may be stored otherwise."""
    theirs = dict(trained.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(theirs[name])


def _adapter_layers(model: PreTrainedModel) -> dict[str, Any]:
    if "peft" not in sys.modules:  # whoever has adapters has imported it
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}


def _check_targets(model: PreTrainedModel, settings: LoraSettings, name: str) -> None:
    head, odd = model.get_output_embeddings(), _odd_layers(model)
    linear = [
        path
        for path, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D) and part is not head and path not in odd
    ]
    targets = settings.target_modules
    if targets == ALL_LINEAR and linear:
        return
    for target in [targets] if isinstance(targets, str) else targets or ["nothing"]:
        if not any(path == target or path.endswith(f".{target}") for path in linear):
            known = sorted({path.rpartition(".")[2] for path in linear})
            raise UserError(
                f"model.lora.target_modules must be {ALL_LINEAR} or a list of linear layers of {name!r} "
                f"({', '.join(known) or 'it has none'}), got {targets}, of which {target!r} matches none"
            )


def _odd_layers(model: PreTrainedModel) -> list[str]:
    """Linear layers that return something else than a linear map, such as routers of experts: they take no adapter."""
    plain, theirs = {nn.Linear.forward, Conv1D.forward}, ("transformers.models.", "transformers_modules.")
    return [
        path
        for path, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D)
        and type(part).forward not in plain
        and type(part).__module__.startswith(theirs)
    ]
