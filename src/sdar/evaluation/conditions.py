"""All that decides which episodes a policy plays on a panel, to the last bit, as plain values."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

import sdar
from sdar.environments.base import Environment
from sdar.episode import Task
from sdar.policy.language_model import LanguageModel, weights_hash
from sdar.rollout.collector import Collector
from sdar.rollout.sampling import turn_generator

_IMPORTED = time.time()
_KNOWN = frozenset({"sdar", "transformers", "torch", "peft", "bitsandbytes"})
"""Packages whose versions are among the conditions, so that what their classes compute is known."""
_OF_TRAINING = frozenset(
    {"tasks_per_iteration", "group_size", "resample_rounds", "keep_equal_groups"}
    | {"max_error_fraction", "max_bad_iterations"}
)
"""Settings of rollouts that no panel is played by."""
_NO_CODE = frozenset({"pretrained", "__pycache__"})


def are_known(collector: Collector) -> bool:
    """Whether :func:`conditions` cover all that decides the episodes.

    They do not where a server or files that no task names take part, or code of which no version is known: a user's own
    environment, a model's own code, another generator. Nor where this package has changed since it was imported.
    """
    return (
        _is_ours(collector.environment)
        and collector.environment.self_contained()
        and getattr(collector.generator_factory, "func", collector.generator_factory) is turn_generator
        and {type(part).__module__.partition(".")[0] for part in collector.policy.model.modules()} <= _KNOWN
        and _is_unchanged()
    )


def conditions(collector: Collector, tasks: Sequence[Task], texts: Sequence[str] | None) -> dict[str, Any]:
    """The conditions of one pass over tasks, but for its key and what only a run knows.

    ``texts``: privileged text of each task; None: there is none.
    """
    policy = collector.policy
    reserved = None if collector.reserved_tokens is None else [collector.reserved_tokens(task) for task in tasks]
    return {
        "tasks": _digest([[task.task_id, task.content_hash] for task in tasks]),
        "texts": None if texts is None else _digest(list(texts)),
        "reserved_tokens": _digest(reserved),
        "weights": weights_hash(policy.model),
        "model": _model(policy),
        "chat": {
            "tokenizer": _tokenizer_hash(policy.tokenizer),
            "end_ids": sorted(policy.chat.end_ids),
            "place": repr(policy.chat.place),
            "enable_thinking": policy.chat.enable_thinking,
        },
        "rollout": {name: value for name, value in asdict(collector.settings).items() if name not in _OF_TRAINING},
        "machine": _machine(policy.model.device),
        "source": source_hash(),
    }


@cache
def source_hash() -> str:
    """Hash (32 hex digits) of this package's code and of the texts that belong to it."""
    root = Path(sdar.__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for file in _source_files():
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)};".encode() + content)
    return digest.hexdigest()


def _is_ours(environment: Environment) -> bool:
    return type(environment).__module__.partition(".")[0] == "sdar"


def _source_files() -> Iterable[Path]:
    root = Path(sdar.__file__).parent
    return sorted(
        file for file in root.rglob("*.*") if file.is_file() and not _NO_CODE.intersection(file.relative_to(root).parts)
    )


def _is_unchanged() -> bool:
    """Whether the code that was imported is the one that is hashed."""
    source_hash()
    return all(file.stat().st_mtime <= _IMPORTED for file in _source_files())


def _model(policy: LanguageModel) -> dict[str, Any]:
    """What computes with the weights. Names and versions that a configuration carries along decide nothing."""
    model: Any = policy.model
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    return {
        "class": policy.architecture,
        "config": _digest(config),
        "attention": model.config._attn_implementation,
        "context_tokens": policy.context_tokens,
        "lora": repr(policy.lora),
        "quantization": policy.quantization,
        "compute_dtype": str(policy.compute_dtype),
    }


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of the files that it would be saved as: there is no other form that all kinds have."""
    with tempfile.TemporaryDirectory() as folder:
        name, tokenizer.name_or_path = tokenizer.name_or_path, ""
        try:
            tokenizer.save_pretrained(folder)
        finally:
            tokenizer.name_or_path = name
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        return _digest([[file.name, hashlib.blake2b(file.read_bytes()).hexdigest()] for file in files])


def _machine(device: torch.device) -> dict[str, Any]:
    """What the rounding of the arithmetic depends on."""
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "build": _digest([torch.__version__, torch.__config__.show(), torch.backends.cudnn.version()]),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None,
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
