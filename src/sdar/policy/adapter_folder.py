"""Models whose folder holds adapters of an earlier fine-tune: the adapters are merged before anything else is done.

Left to itself, transformers would inject them in place, where adapters of our own of the same name replace them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from sdar.errors import UserError
from sdar.files import MB, check_regular

_DEEPEST = 4
"""Adapters on adapters."""

NO_ADAPTERS = {"subfolder": "no-adapters"}
"""``adapter_kwargs`` with which transformers loads the model of a folder without its adapters."""


@dataclass(frozen=True)
class ModelSource:
    """Where the weights of a model are, and the ``adapters`` that belong on them, innermost first."""

    name: str
    revision: str | None
    adapters: Sequence[tuple[str, str | None]] = ()


def find_source(name: str, revision: str | None) -> ModelSource:
    """Follow a folder or hub name that holds adapters to the model that they were trained on.

    UserError: their configuration does not say which model that is, or they are nested too deeply.
    """
    adapters: list[tuple[str, str | None]] = []
    while (file := find_adapter_config_file(name, revision=revision)) is not None:
        if len(adapters) == _DEEPEST:
            raise UserError(f"has adapters on more than {_DEEPEST} levels of adapters; merge them first")
        adapters.insert(0, (name, revision))
        if (Path(name) / "config.json").is_file():
            break  # a whole model with its adapters beside it
        name, revision = _base(file)
    return ModelSource(name, revision, adapters)


def merge_folder(model: PreTrainedModel, folder: str, revision: str | None) -> PreTrainedModel:
    """The model with the adapters of a folder merged into its weights.

    UserError: peft is not installed, or the adapters do not fit the model or cannot be merged.
    """
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise UserError("holds adapters, which need peft, and it is not installed: pip install 'sdar[lora]'") from error
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            adapted: Any = PeftModel.from_pretrained(model, folder, revision=revision)
            merged = adapted.merge_and_unload(safe_merge=True)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # peft raises anything for adapters that it cannot place or merge
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(f"holds adapters that cannot be merged into their model ({reason})") from error
    if missing := [str(warning.message) for warning in told if "missing adapter keys" in str(warning.message)]:
        raise UserError(f"holds adapters without weights for all their layers ({missing[0][:200]})")
    assert isinstance(merged, PreTrainedModel)
    return merged


def _base(file: str) -> tuple[str, str | None]:
    """Name and revision of the model in an adapter's configuration."""
    check_regular(Path(file), MB)
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        config = None
    name, revision = (
        (config.get(key) for key in ("base_model_name_or_path", "revision"))
        if isinstance(config, dict)
        else (None, None)
    )
    if not isinstance(name, str) or not (revision is None or isinstance(revision, str)):
        raise UserError("holds adapters whose adapter_config.json names no base_model_name_or_path")
    return name, revision
