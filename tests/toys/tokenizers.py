"""Small tokenizers of the kinds that models have, each with the tokens of a chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

KINDS = ("bytes", "bpe", "spm", "spm_legacy", "unigram")
"""bytes: bytes alone. bpe: byte-level BPE with merges over words and runs of newlines (GPT-2, Qwen, Llama 3). spm: as
SentencePiece, with a space before the first word of a text (Gemma, Mistral v3). spm_legacy: with a space behind every
added token (Llama 2, Mistral v1, Phi 3). unigram: SentencePiece's other model, with an unknown token."""

_CORPUS = [
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, and a desk (2).\n\n",
    "Your task is to: heat some mug; say abc, say bbb.\n",
    "user assistant system model User Assistant think action INST USER ASSISTANT go to desk 2\n\n\n",
    "<think>I look around.</think><action>go to desk 2</action> [INST] hello [/INST] user:\nassistant:\n",
]
_PATTERN = r"'s|[A-Za-z]+| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+"


@cache
def _backend(kind: str) -> str:
    if kind in ("bytes", "bpe"):
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        size = 256 if kind == "bytes" else 400
        trainer = trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        )
        backend.train_from_iterator(_CORPUS, trainer)
        return str(backend.to_str())
    spaces = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if kind == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.decoder = decoders.Metaspace(prepend_scheme="first")
        backend.train_from_iterator(
            _CORPUS,
            trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
        )
        return str(backend.to_str())
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", *bytes_], show_progress=False)
    backend.train_from_iterator([line.replace("\n", " ") for line in _CORPUS], trainer)
    if kind == "spm":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = spaces
    made = json.loads(backend.to_str())
    # The trainer takes them for special tokens; in real vocabularies they are words like others.
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] == "<unk>"]
    return json.dumps(made)


def toy_tokenizer_of(
    kind: str, template: str | None, tokens: Sequence[AddedToken] = (), **named: str
) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind with the tokens of a template; ``named``: ``bos_token`` and the like."""
    backend = Tokenizer.from_str(_backend(kind))
    unknown = {} if kind in ("bytes", "bpe") else {"unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **unknown, **named)
    tokenizer.add_tokens([token for token in tokens if token.content not in named.values()])
    tokenizer.chat_template = template
    return tokenizer
