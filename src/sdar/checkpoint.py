"""What a checkpoint says of the run it belongs to, and loading the student's weights alone.

Frozen copies (the reference of the KL term) are not in a checkpoint: they are the run's initial weights, which the
configuration names. The checkpoint records their hash, so that other initial weights are noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdar.errors import UserError
from sdar.policy.language_model import LanguageModel

CHECKPOINT_KEY = "sdar"
"""Where the record lies in the checkpoint."""


def origin(policy: LanguageModel) -> dict[str, str]:
    """The record: name and content hash of the model that a run starts from."""
    return {"model": policy.name, "initial_weights": policy.content_hash}


def check_origin(checkpoint: Mapping[str, Any], policy: LanguageModel) -> None:
    """UserError unless the checkpoint's run started from the weights that ``policy`` was built with."""
    found = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(found, Mapping) or "initial_weights" not in found:
        raise UserError("ckpt_path names a checkpoint that no run of sdar has written")
    if found["initial_weights"] != policy.content_hash:
        raise UserError(
            f"ckpt_path names a checkpoint of a run that started from {found.get('model')!r} with the initial weights "
            f"{found['initial_weights']!r}, but this run starts from {policy.name!r} with {policy.content_hash!r}; "
            f"they must be the same"
        )


def load_student(module: nn.Module, policy: LanguageModel, path: str | Path) -> None:
    """Load a checkpoint's weights into the module that holds ``policy``, without a trainer.

    Nothing but tensors and plain values is unpickled. UserError: the file cannot be read, or is of another run.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"ckpt_path is {str(path)!r}, but it cannot be read as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"ckpt_path is {str(path)!r}, but it is not a checkpoint")
    check_origin(checkpoint, policy)
    module.load_state_dict(checkpoint["state_dict"])
