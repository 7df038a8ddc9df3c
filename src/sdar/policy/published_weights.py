"""The weights of a policy as a checkpoint of its model has them: adapters merged, sharded ones whole, published names.

For programs that load them beside the policy, such as another engine that plays its rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from sdar.policy.lora import adapter_updates
from sdar.policy.sharding import whole


def published_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every weight, tied ones under each of their names; the model is left as it is.

    Values are those that :func:`sdar.policy.lora.merge_adapters` would leave, on the model's device, without gradient.
    With sharded weights every process must go through all of them.
    """
    updates = adapter_updates(model)
    merged: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        plain = name.replace(".base_layer", "")
        if plain in updates:
            merged[plain] = _updated(whole(value), updates[plain])
        elif not _is_adapters(name):
            merged[plain] = whole(value)
    published: dict[str, Any] = revert_weight_conversion(model, merged)
    yield from published.items()


def _updated(weight: Tensor, update: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return weight + update().to(weight.dtype)


def _is_adapters(name: str) -> bool:
    return ".lora_" in name
