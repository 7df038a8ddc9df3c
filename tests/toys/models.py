"""Small models and tokenizers that tests of any part can use."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template in the ChatML manner that keeps earlier turns as they are."""

SPECIAL_TOKENS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]


def toy_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: 256 byte tokens and three special ones, 259 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    return tokenizer


def tiny_random_model(
    *,
    vocab_size: int = 300,
    hidden_size: int = 32,
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    context_tokens: int = 512,
    spread: float = 0.3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights (standard deviation ``spread``, so that distributions are far from uniform)."""
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=hidden_size // num_heads,
        max_position_embeddings=context_tokens,
        tie_word_embeddings=True,
        initializer_range=spread,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model.to(dtype).eval()


def save_tiny(folder: Path, *, context_tokens: int = 2048, layers: int = 1, hidden_size: int = 16) -> Path:
    """A random model whose text is bytes, in a folder: runs with it play nonsense, but take a moment."""
    tokenizer = toy_tokenizer()
    model = tiny_random_model(
        vocab_size=len(tokenizer), hidden_size=hidden_size, num_layers=layers, context_tokens=context_tokens
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
