"""Frozen weights in 4 or 8 bits, by bitsandbytes through transformers: the base under adapters (QLoRA).

What the policy samples with, scores with and learns with must be the same function. Two things in bitsandbytes are not,
so they are switched off (:func:`settle`): LLM.int8() rounds activations, and treats a row by what stands in the rows
beside it; and on CPUs with AVX512-BF16 inference runs on other kernels than learning.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from sdar.errors import UserError

Quantization = Literal["nf4", "fp4", "int8"]
"""4-bit normal float, 4-bit float, or 8-bit integers with a scale per row."""


def quantization_config(quantization: Quantization, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers needs to quantize the linear layers of a model while it loads it, but for the output head.

    4-bit weights have a scale per 64 of them, and the scales are quantized, too (QLoRA, arXiv 2305.14314).

    Raises:
        UserError: bitsandbytes or accelerate is not installed, or bitsandbytes does not run on this machine.
    """
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"cannot be quantized: model.quantization={quantization} needs {package}, which is not installed: "
                "pip install 'sdar[quant]'"
            )
    import bitsandbytes

    devices: set[str] = getattr(bitsandbytes, "supported_torch_devices", set())
    if "cpu" not in devices:
        raise UserError(
            f"cannot be quantized: model.quantization={quantization} needs a bitsandbytes that runs on the CPU, where "
            f"models are loaded and checked, but version {bitsandbytes.__version__} runs on "
            f"{', '.join(sorted(devices)) or 'no device'} here: pip install -U 'sdar[quant]'"
        )
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=True,
    )


def quantization_of(model: PreTrainedModel) -> str | None:
    """How the weights of a model are stored: as in :data:`Quantization`, or another method's name; None: as numbers.

    A model may have been quantized before it was saved.
    """
    config: Any = getattr(model.config, "quantization_config", None)
    if getattr(model, "hf_quantizer", None) is None or config is None:
        return None
    if isinstance(config, BitsAndBytesConfig):
        return "int8" if config.load_in_8bit else str(config.bnb_4bit_quant_type)
    method = getattr(config, "quant_method", "unknown")
    return str(getattr(method, "value", method))


def settle(model: PreTrainedModel) -> str | None:
    """Freeze a quantized model, and let it compute the same in every mode; see :func:`quantization_of`."""
    found = quantization_of(model)
    if found is None:
        return None
    model.requires_grad_(False)
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    if found == "int8":
        _compute_with_whole_activations(model)
    return found


def scales(model: PreTrainedModel) -> dict[str, Tensor]:
    """What a quantized model needs beside its parameters, by name; {} for other models."""
    if quantization_of(model) is None:
        return {}
    parameters = {name for name, _ in model.named_parameters()}
    return {name: value for name, value in model.state_dict().items() if name not in parameters}


def _compute_with_whole_activations(model: PreTrainedModel) -> None:
    ours, theirs = _int8_linear()
    for part in model.modules():
        if type(part) is theirs:
            part.__class__ = ours


@functools.cache
def _int8_linear() -> tuple[type[nn.Module], type[nn.Module]]:
    """A layer of 8-bit weights that leaves its input as it is, and the one of bitsandbytes that it replaces."""
    from bitsandbytes.nn import Linear8bitLt

    class Int8Linear(Linear8bitLt):  # type: ignore[misc]
        """Input times the weights, which exist in the input's dtype only while it is multiplied."""

        def forward(self, x: Tensor) -> Tensor:
            """[..., in] to [..., out]."""
            found: Tensor = _Int8Product.apply(  # type: ignore[no-untyped-call]
                x, self.weight, self.weight.SCB.to(x.device), self.bias
            )
            return found

    return Int8Linear, Linear8bitLt


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.dtype = x.dtype
        return nn.functional.linear(x, _dequantized(weight, scale, x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weight, scale = ctx.saved_tensors
        return (gradient @ _dequantized(weight, scale, gradient.dtype)).to(ctx.dtype), None, None, None


def _dequantized(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """[out, in] of 8-bit weights and the largest absolute value [out] of each row."""
    return (weight.data.float() * (scale.float() / 127)[:, None]).to(dtype)
