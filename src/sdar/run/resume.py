"""Continuing from a checkpoint: finding it, and refusing one that does not fit before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar.errors import UserError
from sdar.learning.module import SDARModule
from sdar.policy.checkpoint import check_origin, finished_iterations, read_checkpoint
from sdar.run.folder import config_hash, find_last


def find_checkpoint(config: Mapping[str, Any]) -> Path | None:
    """The checkpoint that ``ckpt_path`` means; None: start afresh.

    Raises:
        UserError: ``last``, and no run under ``logs_dir`` has this configuration.
    """
    wanted = config["ckpt_path"]
    if wanted is None:
        return None
    if wanted == "last":
        return find_last(config["logs_dir"], config_hash(config))
    return Path(wanted)


def check_checkpoint(path: Path, module: SDARModule, *, train: bool, max_iterations: int | None) -> None:
    """Refuse a checkpoint that cannot be read, is of another run, or has nothing left to train.

    ``train``: False where it is only evaluated, which takes its weights alone. ``max_iterations``: iterations after
    which training ends; None: without end.
    Only tensors and plain values are unpickled.
    """
    checkpoint = read_checkpoint(path, mmap=True)
    check_origin(checkpoint, module.policy)
    if not train:
        return
    # The trainer does the same, but only after the panel has been played.
    module.on_load_checkpoint(dict(checkpoint))
    finished = finished_iterations(checkpoint)
    if max_iterations is not None and 0 <= max_iterations <= finished:
        raise UserError(
            f"trainer.max_epochs must be > {finished}, the iterations behind the checkpoint {path}, got "
            f"{max_iterations}; or set train=false to evaluate it"
        )
