"""The two halves of a causal language model: hidden states, and logits from chosen hidden states.

A Hugging Face model computes logits for whole sequences. The policy needs them only where a token is sampled or
scored, so it runs the decoder and the output head separately. Some architectures change the logits after the head; the
changes named in their configs are repeated here, and :mod:`sdar.policy.admission` finds out whether one is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sdar.objective.chunked_head import OutputHead


def hidden_states(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    """Last hidden states [B, T, H] (after the final norm) of token ids [B, T], in the model's dtype."""
    return cast(Tensor, decoder(model)(input_ids=ids, **kwargs).last_hidden_state)


def decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a causal language model below its output head."""
    found = cast(Any, model).get_decoder()
    if found is model:  # it does not name its decoder (Llama 4)
        found = next((part for part in model.children() if isinstance(part, PreTrainedModel)), model)
    return cast(nn.Module, found)


def logits_from_hidden(model: PreTrainedModel, hidden: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits [..., V] in float32 of hidden states [..., H], divided by ``temperature``.

    The head runs in the model's own dtype, as in the model's forward pass; everything after it is float32.
    """
    head = cast(Any, model).get_output_embeddings()
    return _finished(model, head(hidden).float(), temperature)


def output_head(model: PreTrainedModel, temperature: float = 1.0) -> OutputHead | None:
    """The head as a weight and what follows it, logits divided by ``temperature``.

    None where the head is not a plain linear layer (for example, with an adapter). Sharded weights exist only while the
    model's forward pass runs.
    """
    head = cast(Any, model).get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    plain = temperature == 1.0 and all(change is None for change in _changes(model))
    return OutputHead(head.weight, head.bias, None if plain else lambda logits: _finished(model, logits, temperature))


def computed_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype in which the model computes attention."""
    device = model.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype


def vocabulary_size(model: PreTrainedModel) -> int:
    """Number of logits, V."""
    return int(model.config.get_text_config().vocab_size)


def _changes(model: PreTrainedModel) -> tuple[float | None, float | None, float | None]:
    """Factor, divisor and cap of the logits, None where the architecture has none."""
    config = model.config.get_text_config()
    names = ("logit_scale", "logits_scaling", "final_logit_softcapping")  # Cohere, Granite, Gemma
    scale, divisor, cap = (getattr(config, name, None) for name in names)
    return scale, divisor, cap


def _finished(model: PreTrainedModel, logits: Tensor, temperature: float) -> Tensor:
    """Logits as the architecture changes them after the head, divided by ``temperature``."""
    scale, divisor, cap = _changes(model)
    if scale is not None:
        logits = logits * scale
    if divisor is not None:
        logits = logits / divisor
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits if temperature == 1.0 else logits / temperature


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off temporarily; the mode of every module is restored afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    model.train(False)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
