"""The built-in tiny model: its architecture and its tokenizer.

A Qwen3 of well under a million parameters with a byte-level BPE vocabulary for one environment, in which words and the
environment's set phrases are single tokens. Any text can be encoded, but only texts like the environment's take few
tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from sdar.errors import UserError

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

CONTEXT_TOKENS = 1536
"""Longest conversation of a tiny model, unless its domain sets another."""


def build_tokenizer(
    texts: Iterable[str], phrases: Sequence[str], vocabulary_size: int, context_tokens: int = CONTEXT_TOKENS
) -> PreTrainedTokenizerFast:
    """Train the vocabulary on ``texts``.

    ``phrases`` are regular expressions whose matches are not split before merging, so that frequent ones become single
    tokens. Deterministic for equal input.
    """
    pattern = "|".join([*phrases, r" ?[A-Za-z]+", r" ?[0-9]+", r"\s+", r"[^A-Za-z0-9\s]+"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context_tokens,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


@dataclass
class TinyShape:
    """Sizes of a tiny model; the defaults make 0.7 million parameters with the vocabulary of ALFWorld.

    ``hidden_size``  width of the hidden states, a multiple of twice the heads; feed-forward layers have three times it
    ``layers``       at least 1
    ``heads``        attention heads, an even number; pairs of them share their keys and values
    """

    hidden_size: int = 128
    layers: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        """UserError for sizes that no model has."""
        if self.layers < 1:
            raise UserError(f"shape.layers must be >= 1, got {self.layers}")
        if self.heads < 2 or self.heads % 2:
            raise UserError(f"shape.heads must be an even number >= 2, got {self.heads}")
        if self.hidden_size < 1 or self.hidden_size % (2 * self.heads):  # rotary positions turn pairs of numbers
            raise UserError(
                f"shape.hidden_size must be a multiple of {2 * self.heads}, twice the heads, got {self.hidden_size}"
            )


def build_model(
    vocabulary_size: int,
    *,
    seed: int,
    pad_id: int,
    end_id: int,
    context_tokens: int = CONTEXT_TOKENS,
    shape: TinyShape | None = None,
) -> Qwen3ForCausalLM:
    """A newly initialized tiny Qwen3 (float32, tied embeddings), equal for equal seeds."""
    shape = shape or TinyShape()
    config = Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=3 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        head_dim=shape.hidden_size // shape.heads,
        max_position_embeddings=context_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        eos_token_id=end_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
