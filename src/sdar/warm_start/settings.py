"""How a warm start is trained."""

from __future__ import annotations

from dataclasses import dataclass

from sdar.errors import UserError


@dataclass
class WarmStartSettings:
    """How one cycle of a warm start is trained.

    ``steps`` optimizer steps of ``batch_size`` new demonstrations each. The learning rate rises linearly over
    ``warm_up_steps`` and then decays along a cosine to a twentieth of ``learning_rate``. Weights, optimizer and loss
    are float32. Matrix ``products`` are ``float32`` or, by autocast, ``bfloat16``; ``auto``:
    :func:`sdar.warm_start.train.fast_products`.
    """

    steps: int = 720
    batch_size: int = 32
    learning_rate: float = 3e-3
    warm_up_steps: int = 40
    weight_decay: float = 0.05
    grad_clip: float = 1.0
    products: str = "auto"

    def __post_init__(self) -> None:
        """Refuse unknown number formats."""
        if self.products not in ("auto", "bfloat16", "float32"):
            raise UserError(f"training.products must be auto, bfloat16 or float32, got {self.products}")
