"""State that teachers, context parts and retrieval strategies may keep between iterations, with no-op defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sdar.errors import UserError


class Memory:
    """Metrics, a readable record, and checkpoint state. All are empty by default."""

    setting: ClassVar[str] = "teacher"
    """The configuration group that selects the class, for messages."""

    def metrics(self) -> dict[str, float]:
        """Metrics of the last iteration by tag, the same on all ranks."""
        return {}

    def record(self) -> dict[str, Any]:
        """The state in readable form: plain values."""
        return {}

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint: tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of ``state``. Raises UserError for the state of another class."""
        if state:
            raise UserError(f"ckpt_path names a checkpoint of a run with another {self.setting}; it must be the same")
