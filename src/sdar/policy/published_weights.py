"""The weights of a policy as a checkpoint of its model has them: adapters merged, sharded ones whole, published names.

For programs that load them beside the policy, such as another engine that plays its rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from sdar.policy.lora import adapter_updates
from sdar.policy.sharding import whole

_ADAPTERS, _WRAPPED = ".lora_", ".base_layer"
"""In the names of adapters, and of what they are on (peft)."""


def published_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every weight, tied ones under each of their names; the model is left as it is.

    Values are those that :func:`sdar.policy.lora.merge_adapters` would leave, on the model's device, without gradient.
    One exists at a time, but for models that are published in other parts than transformers has them (experts). With
    sharded weights every process must go through all of them.
    """
    kept = {name.replace(_WRAPPED, ""): value for name, value in model.state_dict().items() if _ADAPTERS not in name}
    updates = adapter_updates(model)

    def merged(name: str) -> Tensor:
        weight = whole(kept[name])
        if name not in updates:
            return weight
        with torch.no_grad():
            return weight + updates[name]().to(weight.dtype)

    shapes = {name: torch.empty(value.shape, dtype=value.dtype, device="meta") for name, value in kept.items()}
    if _published(model, shapes).keys() == shapes.keys():
        yield from ((name, merged(name)) for name in kept)
    else:
        yield from _published(model, {name: merged(name) for name in kept}).items()


def _published(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Any]:
    converted: dict[str, Any] = revert_weight_conversion(model, dict(weights))
    return converted
