"""What teachers, parts and strategies may keep from iteration to iteration, with defaults for those that do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sdar.errors import UserError


class Memory:
    """Metrics, a record for people, and the state that a checkpoint keeps; nothing unless a class says otherwise."""

    setting: ClassVar[str] = "teacher"
    """The group of the configuration that chooses it, for messages."""

    def metrics(self) -> dict[str, float]:
        """What to log of the last iteration, by tag; the same on all ranks."""
        return {}

    def record(self) -> dict[str, Any]:
        """What it remembers, to be read by people: plain values."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep: tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave; UserError where it is that of another."""
        if state:
            raise UserError(f"ckpt_path names a checkpoint of a run with another {self.setting}; it must be the same")
