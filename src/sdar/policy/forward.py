"""The two halves of a causal language model: hidden states, and logits from chosen hidden states.

A Hugging Face model computes logits for whole sequences. The policy needs them only where a token is sampled or
scored, so it runs the decoder and the output head apart. Some architectures change the logits after the head; the
changes named in their configs are repeated here, and :func:`split_forward_error` measures whether anything is missing.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel


def hidden_states(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    """Last hidden states [B, T, H] (after the final norm) of token ids [B, T], in the model's dtype."""
    decoder = cast(Any, model).get_decoder()
    return cast(Tensor, decoder(input_ids=ids, **kwargs).last_hidden_state)


def logits_from_hidden(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits [..., V] in float32 of hidden states [..., H].

    The head runs in the model's own dtype, as in the model's forward pass; everything after it is float32.
    """
    head = cast(Any, model).get_output_embeddings()
    logits: Tensor = head(hidden).float()
    config = model.config.get_text_config()
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


@torch.no_grad()
def split_forward_error(model: PreTrainedModel, ids: Tensor) -> float:
    """Largest absolute difference between the model's own logits and the two halves', for ids [B, T]."""
    whole = model(input_ids=ids, use_cache=False).logits.float()
    halves = logits_from_hidden(model, hidden_states(model, ids, use_cache=False))
    return float((whole - halves).abs().max())
