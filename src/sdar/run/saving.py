"""How the trainer writes and reads checkpoint files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import nn

from sdar.errors import UserError
from sdar.policy.checkpoint_file import free_gib, read_checkpoint, write_checkpoint


class CheckpointFiles(CheckpointIO):
    """Writes checkpoints whole or not at all, and reads only tensors and plain values, every byte checked.

    Give it to a trainer of your own as ``Trainer(plugins=[CheckpointFiles()])``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """See :func:`sdar.policy.checkpoint_file.write_checkpoint`."""
        if storage_options is not None:
            raise TypeError(f"storage_options must be None, got {storage_options!r}: files are written to a folder")
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,  # noqa: ARG002 - read to the CPU; the trainer moves what it restores
        weights_only: bool | None = None,  # noqa: ARG002 - never anything else
    ) -> dict[str, Any]:
        """See :func:`sdar.policy.checkpoint_file.read_checkpoint`."""
        return dict(read_checkpoint(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file, if it is there."""
        Path(path).unlink(missing_ok=True)


def check_space(folder: Path, module: nn.Module) -> None:
    """Refuse to train where not even one checkpoint fits: weights that are trained, or all, and two moments of each.

    Raises:
        UserError: there is less room.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    needed = 3 * sum(parameter.numel() * parameter.element_size() for parameter in trained) / 2**30
    if (free := free_gib(folder)) < needed:
        raise UserError(
            f"run_dir={folder}: a checkpoint takes about {needed:.2f} GiB, and only {free:.2f} GiB are free; make "
            "room, or set logs_dir to a folder of another disk"
        )
