"""What a user may choose about how a model is loaded: attention, quantized weights, further arguments, its own code."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from sdar.config.plugins import is_allowed_model
from sdar.errors import UserError
from sdar.policy.adapter_folder import ModelSource
from sdar.policy.quantization import Quantization, quantization_config, quantization_of

Attention = Literal["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"]
_MASKS = "whose kernels take no attention mask, and the rollouts' key/value cache needs one"
_UNUSABLE = {
    "flash_attention_2": _MASKS,
    "flash_attention_3": _MASKS,
    "flex_attention": "whose kernels are compiled for each shape, and a rollout has another one at every token",
}

_Plain = str | int | float | bool | None
PlainValue = _Plain | list[_Plain] | dict[str, _Plain | list[_Plain]]
"""What ``model.kwargs`` may hold: no objects."""

_LOADING = ("variant", "use_safetensors", "local_files_only", "experts_implementation")
"""Arguments of from_pretrained that say which files are read, or how experts are computed; none brings code."""
_EXPERTS = ("eager", "batched_mm", "grouped_mm")
"""Transformers' own; others are names of compiled code on the Hub."""
_NOT_CHANGED = frozenset(
    {"architectures", "auto_map", "dtype", "model_type", "quantization_config", "torch_dtype", "transformers_version"}
)
"""Entries of a configuration that are no settings of the model, or have one of their own."""


@dataclass(frozen=True)
class LoadingChoices:
    """Settings of ``model=hf`` of the same names.

    ``attn_implementation``  None: transformers' choice
    ``quantization``         of the frozen weights; None: they stay as they are
    ``kwargs``               further arguments of from_pretrained: those of files, and entries of the configuration
    ``trust_remote_code``    run code that comes with the model, where the user allows that model
    """

    attn_implementation: Attention | None = None
    quantization: Quantization | None = None
    kwargs: Mapping[str, PlainValue] = field(default_factory=dict)
    trust_remote_code: bool = False

    def trusts(self, source: str) -> bool:
        """Whether code that comes with ``source`` is run.

        Raises:
            UserError: the setting says so, but the user has not allowed that model.
        """
        if self.trust_remote_code and not is_allowed_model(source):
            raise UserError(
                f"is not loaded: model.trust_remote_code=true would run the code that comes with {source}; if you "
                f"trust it, add --allow {source}"
            )
        return self.trust_remote_code

    @property
    def local_files_only(self) -> bool:
        """Whether nothing is asked of the Hub."""
        return self.kwargs.get("local_files_only") is True

    def arguments(self, source: ModelSource, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of from_pretrained.

        Raises:
            UserError: a choice that cannot be met, before anything large is loaded.
        """
        found: dict[str, Any] = self._extra(source)
        if self.attn_implementation is not None:
            if reason := _UNUSABLE.get(self.attn_implementation):
                raise UserError(
                    f"cannot be used with model.attn_implementation={self.attn_implementation}, {reason}; set it to "
                    "sdpa, which runs PyTorch's own flash kernels where no mask is needed"
                )
            found["attn_implementation"] = self.attn_implementation
        if self.quantization is not None:
            # On the CPU whatever devices there are: the weights come out alike everywhere.
            found["quantization_config"] = quantization_config(self.quantization, dtype)
            found["device_map"] = {"": "cpu"}
        return found

    def check_met(self, model: PreTrainedModel) -> None:
        """UserError unless a loaded model has the attention and the quantization that were asked for."""
        wanted, used = self.attn_implementation, model.config.get_text_config()._attn_implementation
        if wanted is not None and used != wanted:
            raise UserError(f"does not support model.attn_implementation={wanted} and uses {used}; set it to null")
        stored = quantization_of(model)
        if self.quantization is not None and stored != self.quantization:
            raise UserError(
                f"cannot be quantized as model.quantization={self.quantization}, because it is stored as {stored}; set "
                "it to null"
            )

    def advice(self, error: BaseException) -> str:
        """What to do about an error of transformers while it loaded a model."""
        told = str(error)
        if "trust_remote_code" in told:
            return "with model=hf, model.trust_remote_code=true runs it if you trust it"
        if self.attn_implementation is not None and "attention" in told:
            return f"model.attn_implementation={self.attn_implementation} must be one that it supports, or null"
        return "it must be a local directory or a model on the Hugging Face Hub that is reachable or cached"

    def _extra(self, source: ModelSource) -> dict[str, Any]:
        if not self.kwargs:
            return {}
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source.name,
            revision=source.revision,
            trust_remote_code=self.trusts(source.name),
            local_files_only=self.local_files_only,
        )
        known = {name for name in config.to_dict() if name[0] != "_"} - _NOT_CHANGED
        known -= {name for name in known if isinstance(getattr(config, name, None), PretrainedConfig)}
        for name, value in self.kwargs.items():
            if name not in known and name not in _LOADING:
                near = difflib.get_close_matches(name, [*known, *_LOADING], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UserError(
                    f"cannot take model.kwargs.{name}: it must be {', '.join(_LOADING)}, or an entry of the model's "
                    f"config.json{hint}"
                )
            if name == "experts_implementation" and value not in _EXPERTS:
                raise UserError(f"cannot take model.kwargs.{name}={value!r}: it must be one of {', '.join(_EXPERTS)}")
        return dict(self.kwargs)
