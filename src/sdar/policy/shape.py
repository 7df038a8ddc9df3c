"""The shape of a decoder-only model: what its parameters, its key/value cache and its passes come to, by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated MLP, as Qwen, Llama, Mistral and Gemma have.

    ``hidden``        H, width of the residual stream
    ``layers``        decoder layers
    ``heads``, ``kv_heads``, ``head_dim``  of attention
    ``intermediate``  width of the MLP
    ``vocabulary``    V
    ``tied``          whether embedding and output head are one matrix
    ``qkv_bias``      whether queries, keys and values have a bias (Qwen2)
    ``qk_norm``       whether queries and keys are normalized (Qwen3)
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False

    @classmethod
    def of(cls, config: Any) -> ModelShape | None:
        """That of a text configuration of transformers; None: it lacks a number, or has experts."""
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
        found = [getattr(config, name, None) for name in names]
        experts = any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
        if experts or not all(isinstance(number, int) for number in found):
            return None
        hidden, layers, heads, intermediate, vocabulary = (int(number) for number in found if number is not None)
        kind = str(getattr(config, "model_type", ""))
        return cls(
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
            intermediate=intermediate,
            vocabulary=vocabulary,
            tied=bool(getattr(config, "tie_word_embeddings", False)),
            qkv_bias=bool(getattr(config, "attention_bias", kind == "qwen2")),
            qk_norm=kind == "qwen3",
        )

    @property
    def layer_products(self) -> int:
        """Weights of the matrix products of all layers: attention and MLP."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        norms = self.hidden + self.layers * (2 * self.hidden + 2 * self.head_dim * self.qk_norm)
        biases = self.layers * self.head_dim * (self.heads + 2 * self.kv_heads) * self.qkv_bias
        return self.layer_products + norms + biases + self.head * (1 if self.tied else 2)

    def cache_bytes(self, number_bytes: int) -> int:
        """Bytes of the key/value cache of one token, numbers of ``number_bytes`` bytes each."""
        return 2 * self.layers * self.kv_heads * self.head_dim * number_bytes

    def forward_flops(self, tokens: float, row_tokens: float, scored: float) -> float:
        """Floating-point operations of a forward pass over ``tokens`` tokens in rows of ``row_tokens``.

        2 per weight and token in the layers; 2 per weight of the head for each of the ``scored`` tokens; for attention
        4 per head dimension, layer and pair of a token with one before it (causal: half of the row on average).
        """
        attention = 2 * self.layers * self.heads * self.head_dim * row_tokens
        return tokens * (2 * self.layer_products + attention) + 2.0 * self.head * scored

    def activation_bytes(self, number_bytes: int, *, checkpointing: bool) -> int:
        """Bytes that a forward pass with gradient keeps per token, attention without its score matrix.

        Per layer: six numbers of the residual stream's width, float32 in any case; where matrix products are in
        bfloat16, five copies of their inputs; queries, keys and values before and after their rotation, attention's
        output, and four of the MLP's width (gate, its activation, up, their product). With ``checkpointing`` a layer
        keeps its input, and one layer at a time has everything.
        """
        heads = self.head_dim * (self.heads + 2 * self.kv_heads)
        layer = 6 * 4 * self.hidden + (5 * number_bytes * self.hidden if number_bytes < 4 else 0)
        layer += number_bytes * (2 * heads + self.head_dim * self.heads + 4 * self.intermediate)
        if checkpointing:
            return self.layers * self.hidden * 4 + layer
        return self.layers * layer
