"""A language model with what a rollout needs to know about it, and the two ways to load one."""

from __future__ import annotations

import hashlib
import logging
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sdar.config.fields import checked
from sdar.config.paths import at_home
from sdar.errors import UserError
from sdar.files import GB, MB, FileError, check_regular, entries
from sdar.policy.adapter_folder import NO_ADAPTERS, ModelSource, find_source, merge_folder
from sdar.policy.admission import admit, check_recomputation, position_limits, unchanged_scores
from sdar.policy.chat import ChatFormat
from sdar.policy.chat_check import checked_chat, sample_conversation
from sdar.policy.checkpoint_file import first_not_finite
from sdar.policy.dropout import remove_dropout
from sdar.policy.loading import Attention, LoadingChoices, PlainValue
from sdar.policy.lora import LoraSettings, add_adapters
from sdar.policy.quantization import Quantization, scales, settle
from sdar.policy.sharding import is_sharded
from sdar.policy.windows import AttentionWindows

log = logging.getLogger(__name__)

PRETRAINED = Path(__file__).parent / "pretrained"
"""Directory of the shipped models, one directory each."""

_LARGEST = {".json": GB, ".jinja": MB, ".txt": GB, ".model": GB, ".safetensors": 10_000 * GB, ".bin": 10_000 * GB}
"""Bytes of the files of a model, by suffix."""

DType = Literal["float32", "bfloat16"]
_LEAST_LONGEST = 16
_ANY_TEXT = "A text of 3 words."
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # float16 would need loss scaling


@dataclass
class LanguageModel:
    """A causal language model that plays.

    context_tokens  longest conversation in tokens, responses included.
    windows         which earlier tokens its layers attend to.
    name            what the user asked for (a name or a path).
    content_hash    of the loaded weights, without adapters; see :func:`weights_hash`.
    lora            adapters that are trained instead of the weights; None: all weights are trained.
    quantization    how the weights under the adapters are stored, for example nf4; None: as numbers of their dtype.
    compute_dtype   of matrix products while it plays, by autocast (see :func:`autocast_of`); None: that of the weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    context_tokens: int
    name: str
    content_hash: str
    lora: LoraSettings | None = None
    windows: AttentionWindows = field(default_factory=AttentionWindows)
    quantization: str | None = None
    compute_dtype: torch.dtype | None = None

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

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token that is reckoned with: what a vocabulary does not know may be any length."""
        return max(_LEAST_LONGEST, max(map(len, self.tokenizer.get_vocab())))

    @property
    def most_characters(self) -> int:
        """A text that is longer cannot fit into the context, whatever it says."""
        return self.context_tokens * self.longest_token


def autocast_of(precision: object) -> torch.dtype | None:
    """``compute_dtype`` under a trainer's precision: a mixed one computes in another dtype than its weights have."""
    return torch.bfloat16 if precision in ("bf16-mixed", "bf16") else None


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
    attn_implementation: Attention | None = None,
    quantization: Quantization | None = None,
    kwargs: dict[str, PlainValue] | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Any Hugging Face causal language model, by its name on the hub or by a local path.

    revision is a branch, tag or commit on the hub; enable_thinking is passed to the chat template (Qwen3 has it);
    lora: see :class:`sdar.policy.lora.LoraSettings`; gradient_checkpointing recomputes the activations of the update
    instead of keeping them; the last four: see :class:`sdar.policy.loading.LoadingChoices`. Raises UserError (setting
    ``model.name``) when the model cannot be loaded, has no chat template, or computes something the policy cannot
    repeat (logits outside the output head, no key/value cache).
    :meth:`sdar.policy.chat.ChatFormat.check_append` tells whether turns can be appended.
    """
    return load_model(
        name,
        name,
        "model.name",
        dtype=dtype,
        revision=revision,
        enable_thinking=enable_thinking,
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
        choices=LoadingChoices(attn_implementation, quantization, kwargs or {}, trust_remote_code),
    )


def weights_hash(model: PreTrainedModel) -> str:
    """Hash (32 hex digits) of all parameters: names, dtypes, shapes and values; tied weights count once.

    Those of a quantized model mean nothing without their scales, which are hashed as well.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in [*sorted(model.named_parameters()), *sorted(scales(model).items())]:
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)};".encode())
        # A copy: a storage that numpy has looked into cannot be freed any more, which sharded weights are (FSDP2).
        content = parameter.detach().to("cpu", copy=True).contiguous()
        digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
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
    gradient_checkpointing: bool = False,
    choices: LoadingChoices | None = None,
) -> LanguageModel:
    """Load a model from ``source`` without its dropout, check that it can play, and add adapters if there are any.

    ``name`` is the user's name for it, and ``setting`` where it was given; UserErrors name both.
    """
    who = f"{setting}: {name!r}"
    source = at_home(source)
    choices = choices or LoadingChoices()
    _check_folder(source, who)
    _check_files(source, who)
    try:
        origin = find_source(source, revision)
        chosen = choices.arguments(origin, _DTYPES[dtype])
        tokenizer: Any = _load_tokenizer(origin, choices)
        if not tokenizer(_ANY_TEXT, add_special_tokens=False).input_ids:  # transformers makes one without a vocabulary
            raise UserError(
                "has no tokenizer: none of its files has a vocabulary; write it into the folder with "
                "AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)"
            )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            origin.name,
            revision=origin.revision,
            dtype=_DTYPES[dtype],
            output_loading_info=True,
            # False, not None: transformers would ask on the terminal whether to run code that comes with a model
            trust_remote_code=choices.trusts(origin.name),
            adapter_kwargs=NO_ADAPTERS,
            **chosen,
        )
        choices.check_met(loaded[0])
    except UserError as error:
        raise UserError(f"{who} {error}") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # loaders raise anything, bare Exception included
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if isinstance(error, KeyError):  # its text is the key alone
            reason = f"{reason} is missing from one of its files, or is no word that transformers knows"
        raise UserError(
            f"{setting}: {name!r} cannot be loaded as a causal language model ({reason}); {choices.advice(error)}"
        ) from error
    model, info = loaded
    quantization = settle(model)
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{setting}: {name!r} has no weights for {len(missing)} parameters of its causal language model "
            f"({missing[0]}, ...), which would be random; use a complete model"
        )
    for folder, its_revision in origin.adapters:
        if quantization is not None:
            raise UserError(
                f"{who} holds adapters, which cannot be merged into a quantized base ({quantization}) without loss; "
                "merge them into the whole one first"
            )
        try:
            model = merge_folder(model, folder, its_revision)
        except UserError as error:
            raise UserError(f"{who} {error}") from error
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
    chat = checked_chat(ChatFormat.from_tokenizer(tokenizer, enable_thinking=enable_thinking, stop_ids=stop_ids(model)))
    model.train(False)
    remove_dropout(model)
    conversation = sample_conversation(chat)
    limits = position_limits(model.config.get_text_config(), tokenizer.model_max_length)
    admitted = admit(model, conversation, chat.end_id, limits, who)
    for remark in admitted.remarks:
        log.warning("%s", remark)
    if gradient_checkpointing:
        _recompute(model, name)
        check_recomputation(model, conversation[0], who)
    content_hash = weights_hash(model)
    if lora is not None:
        with unchanged_scores(model, conversation[0], who, f"model.lora.target_modules={lora.target_modules}"):
            add_adapters(model, lora, name)
    return LanguageModel(
        model, tokenizer, chat, admitted.context_tokens, name, content_hash, lora, admitted.windows, quantization
    )


def _load_tokenizer(origin: ModelSource, choices: LoadingChoices) -> Any:
    """That of the outermost adapters that bring one, or else of the model."""
    local = choices.local_files_only
    for folder, revision in reversed(origin.adapters):
        trust = choices.trusts(folder)
        with suppress(OSError, ValueError):  # they bring none
            return AutoTokenizer.from_pretrained(
                folder, revision=revision, trust_remote_code=trust, local_files_only=local
            )
    return AutoTokenizer.from_pretrained(
        origin.name, revision=origin.revision, trust_remote_code=choices.trusts(origin.name), local_files_only=local
    )


def _recompute(model: Any, name: str) -> None:
    """Turn gradient checkpointing on. UserError: the model does not support it."""
    if not model.supports_gradient_checkpointing:
        raise UserError(f"model.gradient_checkpointing=true is not supported by {name!r}; set it to false")
    with warnings.catch_warnings():
        # Later releases of transformers renamed it; the first releases of version 5 do not have the new name.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def stop_ids(model: PreTrainedModel) -> list[int]:
    """The tokens at which the model's own ``generate`` stops."""
    generation: Any = model.generation_config
    given = None if generation is None else generation.eos_token_id
    given = given if isinstance(given, list | tuple) else [given]
    size = int(cast(Any, model.get_input_embeddings()).weight.shape[0])
    return sorted({int(token) for token in given if isinstance(token, int) and 0 <= token < size})


def _check_folder(source: str, who: str) -> None:
    """UserError where a name can only be a folder's (the Hub's are ``NAME`` or ``OWNER/NAME``), and there is none."""
    local = source.startswith(("/", "./", "../", "~")) or source.count("/") > 1
    if local and not Path(source).exists():
        seen = "" if Path(source).is_absolute() else f" in {Path.cwd()}"
        raise UserError(
            f"{who} cannot be loaded: there is no such folder{seen}; give the path of a folder that save_pretrained "
            "wrote, or OWNER/NAME of a model on the Hugging Face Hub"
        )


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
