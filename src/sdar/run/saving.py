"""How the trainer writes and reads checkpoint files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from sdar.policy.checkpoint_file import read_checkpoint, write_checkpoint


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
