"""A language model with what a rollout needs to know about it, and the two ways to load one."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sdar.config.fields import checked
from sdar.errors import RunFailed, UserError
from sdar.files import GB, MB, FileError, check_regular, entries
from sdar.policy.chat import ChatFormat
from sdar.policy.checkpoint_file import first_not_finite
from sdar.policy.dropout import remove_dropout
from sdar.policy.forward import split_forward_error
from sdar.policy.generation import TurnGenerator
from sdar.policy.lora import LoraSettings, add_adapters
from sdar.policy.sharding import is_sharded

PRETRAINED = Path(__file__).parent / "pretrained"
"""Directory of the shipped models, one directory each."""

_LARGEST = {".json": GB, ".jinja": MB, ".txt": GB, ".model": GB, ".safetensors": 10_000 * GB, ".bin": 10_000 * GB}
"""Bytes of the files of a model, by suffix."""

DType = Literal["float32", "bfloat16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # float16 would need loss scaling
_PROBE_TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.5}
"""Largest difference between two ways to compute the same logits, by the model's dtype."""


@dataclass
class LanguageModel:
    """A causal language model that plays.

    context_tokens  longest conversation in tokens, responses included.
    name            what the user asked for (a name or a path).
    content_hash    of the loaded weights, without adapters; see :func:`weights_hash`.
    lora            adapters that are trained instead of the weights; None: all weights are trained.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    context_tokens: int
    name: str
    content_hash: str
    lora: LoraSettings | None = None

    @property
    def architecture(self) -> str:
        """Class of the model without FSDP2's prefix, for example Qwen3ForCausalLM."""
        name = type(self.model).__name__
        return name.removeprefix("FSDP") if is_sharded(self.model) else name

    @property
    def pad_id(self) -> int:
        """Id of padding. It may equal the end token: masks come from lengths, not ids."""
        pad = self.tokenizer.pad_token_id
        return self.chat.end_id if pad is None else int(pad)


@checked
def tiny_model(path: str | Path, dtype: DType = "float32", lora: LoraSettings | None = None) -> LanguageModel:
    """A model from a directory written by ``save_pretrained``, or a shipped one by its name.

    lora: see :class:`sdar.policy.lora.LoraSettings`. Raises UserError (setting ``model.path``) when there is no such
    directory or model, or when it cannot be loaded or played.
    """
    found = (folder for folder in (Path(path), PRETRAINED / path) if (folder / "config.json").is_file())
    folder = next(found, None)
    if folder is None:
        shipped = sorted(found.parent.name for found in PRETRAINED.glob("*/config.json"))
        raise UserError(
            f"model.path must be a directory with a config.json or a shipped model "
            f"({', '.join(shipped) or 'none is shipped'}), got {str(path)!r}"
        )
    return load_model(str(folder), str(path), "model.path", dtype=dtype, lora=lora)


@checked
def hf_model(
    name: str,
    dtype: DType = "float32",
    revision: str | None = None,
    enable_thinking: bool = False,
    lora: LoraSettings | None = None,
    gradient_checkpointing: bool = False,
) -> LanguageModel:
    """Any Hugging Face causal language model, by its name on the hub or by a local path.

    revision is a branch, tag or commit on the hub; enable_thinking is passed to the chat template (Qwen3 has it);
    lora: see :class:`sdar.policy.lora.LoraSettings`; gradient_checkpointing recomputes the activations of the update
    instead of keeping them. Raises UserError (setting ``model.name``) when the model cannot be loaded, has no chat
    template, or computes something the policy cannot repeat (logits outside the output head, no key/value cache).
    :meth:`sdar.policy.chat.ChatFormat.check_append` tells whether turns can be appended.
    """
    loaded = load_model(
        name, name, "model.name", dtype=dtype, revision=revision, enable_thinking=enable_thinking, lora=lora
    )
    if gradient_checkpointing:
        if not loaded.model.supports_gradient_checkpointing:
            raise UserError(f"model.gradient_checkpointing=true is not supported by {name!r}; set it to false")
        with warnings.catch_warnings():
            # Later releases of transformers renamed it; the first releases of version 5 do not have the new name.
            warnings.simplefilter("ignore", FutureWarning)
            loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return loaded


def weights_hash(model: torch.nn.Module) -> str:
    """Hash (32 hex digits) of all parameters: names, dtypes, shapes and values; tied weights count once."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)};".encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_model(
    source: str,
    name: str,
    setting: str,
    *,
    dtype: DType,
    revision: str | None = None,
    enable_thinking: bool = False,
    lora: LoraSettings | None = None,
) -> LanguageModel:
    """Load a model from ``source`` without its dropout, check that it can play, and add adapters if there are any.

    ``name`` is the user's name for it, and ``setting`` where it was given; UserErrors name both.
    """
    _check_files(source, f"{setting}: {name!r}")
    try:
        # False, not None: transformers would ask on the terminal whether to run code that comes with a model
        tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=_DTYPES[dtype], output_loading_info=True, trust_remote_code=False
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # loaders raise anything, bare Exception included
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{setting}: {name!r} cannot be loaded as a causal language model ({reason}); it must be a local directory "
            "or a model on the Hugging Face Hub that is reachable or cached"
        ) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{setting}: {name!r} has no weights for {len(missing)} parameters of its causal language model "
            f"({missing[0]}, ...), which would be random; use a complete model"
        )
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise UserError(
            f"{setting}: the tokenizer of {name!r} has {len(tokenizer)} tokens, but its model has only "
            f"{model.get_input_embeddings().weight.shape[0]}; use a model with its own tokenizer"
        )
    if broken := first_not_finite(dict(model.named_parameters())):
        raise UserError(
            f"{setting}: the weights of {name!r} are not finite ({broken}); use a model without nan and inf"
        )
    tokenizer.name_or_path = name
    chat = ChatFormat.from_tokenizer(tokenizer, enable_thinking=enable_thinking)
    model.train(False)
    remove_dropout(model)
    _check_playable(model, chat.end_id, f"{setting}: {name!r}")
    content_hash = weights_hash(model)
    if lora is not None:
        add_adapters(model, lora, name)
    return LanguageModel(model, tokenizer, chat, _context_tokens(model, tokenizer), name, content_hash, lora)


def _check_files(source: str, who: str) -> None:
    """UserError where a file of a local model is none, such as a pipe, or has no size of its kind."""
    if not Path(source).is_dir():
        return
    try:
        for file in entries(source):
            if file.suffix in _LARGEST:
                check_regular(file, _LARGEST[file.suffix])
    except FileError as error:
        raise UserError(f"{who} cannot be loaded: {error}") from error


def _context_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Positions the model was made for, at most its attention window.

    Up to the window, windowed attention is plain attention, the only kind that the rollouts' cache supports.
    """
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    windows = (getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size"))
    return min([int(positions), *(int(window) for window in windows if window)])


def _check_playable(model: PreTrainedModel, end_id: int, who: str) -> None:
    """Compare the policy's computation in parts with the model's own forward pass, on a few tokens."""
    rows = [[end_id, 1, 2, 3, 4], [end_id, 5, 6]]
    try:
        # First: it raises where logits are not finite, and so cannot be compared.
        shortfall = _cached_shortfall(model, rows, end_id)
        error = max([shortfall, *(split_forward_error(model, torch.tensor([row])) for row in rows)])
    except (TypeError, AttributeError, ValueError, IndexError, RuntimeError, NotImplementedError) as problem:
        raise UserError(
            f"{who} does not run with separate hidden states and a custom key/value cache ({type(problem).__name__}: "
            f"{str(problem).splitlines()[0] if str(problem) else ''}); use a decoder with plain attention"
        ) from problem
    except RunFailed as problem:
        raise UserError(
            f"{who} gives logits that are not finite, although its weights are; use model.dtype=float32, or a model "
            "whose activations do not overflow"
        ) from problem
    if not error <= _PROBE_TOLERANCE[model.dtype]:
        raise UserError(
            f"{who} computes different logits in one pass and in parts (by {error:.3g}), so sampled and scored "
            "probabilities would differ; use a decoder with plain attention and a plain output head"
        )


@torch.no_grad()
def _cached_shortfall(model: PreTrainedModel, rows: list[list[int]], end_id: int) -> float:
    """Largest gap between the best logits of full passes and those of the tokens of two cached greedy turns."""
    generator = TurnGenerator(model, pad_id=end_id, end_id=end_id, temperature=0.0, max_response_tokens=2)
    generator.start(len(rows))
    conversations: list[list[int]] = [[] for _ in rows]
    worst = 0.0
    for turn in (rows, rows[::-1]):
        answers = generator.respond(dict(enumerate(turn)), {slot: np.zeros(2) for slot in range(len(rows))})
        for slot, answer in answers.items():
            conversations[slot] += [*turn[slot], *answer]
            logits = model(input_ids=torch.tensor([conversations[slot]]), use_cache=False).logits[0].float()
            before = logits[-len(answer) - 1 : -1]
            taken = before[torch.arange(len(answer)), torch.tensor(answer)]
            worst = max(worst, float((before.max(dim=-1).values - taken).max()))
    return worst
