"""Supervised training of a tiny model on a stream of demonstrations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from sdar.errors import UserError

if TYPE_CHECKING:
    from sdar.warm_start.demonstrations import Demonstration


class Demonstrations(Protocol):
    """A seekable stream of demonstrations."""

    def __getitem__(self, index: int) -> Demonstration:
        """Demonstration number ``index``."""
        ...


@dataclass
class WarmStartSettings:
    """How one cycle of a warm start is trained.

    ``steps`` optimiser steps of ``batch_size`` fresh demonstrations each; the learning rate rises over
    ``warm_up_steps`` and falls along a cosine to a twentieth of ``learning_rate``. Weights, optimiser and loss are
    float32; ``products`` of matrices are ``float32`` or, by autocast, ``bfloat16``; ``auto``: :func:`fast_products`.
    """

    steps: int = 720
    batch_size: int = 32
    learning_rate: float = 3e-3
    warm_up_steps: int = 40
    weight_decay: float = 0.05
    grad_clip: float = 1.0
    products: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what ``products`` cannot be."""
        if self.products not in ("auto", "bfloat16", "float32"):
            raise UserError(f"training.products={self.products}: allowed are auto, bfloat16 and float32")


def fast_products() -> str:
    """The faster number format of this processor's matrix products.

    bfloat16 where oneDNN has instructions for it; elsewhere it is emulated, seven times slower than float32 on a
    processor with AVX2 alone.
    """
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if native else "float32"


_WIDTH_STEP = 32

_BATCHES_PER_POOL = 4
"""Demonstrations are sorted by length within so many batches, to pad less."""


def train_warm_start(
    model: PreTrainedModel,
    demonstrations: Demonstrations,
    settings: WarmStartSettings,
    pad_id: int,
    first: int,
    report: Callable[[int, float, float], None],
) -> None:
    """Train ``model`` in place with a new optimiser, on demonstrations from number ``first`` on.

    ``report(step, loss, seconds)`` is called after every step.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    model.train()
    products = fast_products() if settings.products == "auto" else settings.products
    device = next(model.parameters()).device.type
    started = time.monotonic()
    for step, batch in enumerate(_batches(demonstrations, settings, pad_id, first)):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, settings)
        with torch.autocast(device, torch.bfloat16, enabled=products == "bfloat16"):
            loss = weighted_loss(model, *batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        report(step + 1, float(loss.detach()), time.monotonic() - started)
    model.eval()


def weighted_loss(model: PreTrainedModel, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood in nats over ids [B, T], weighted by ``weights`` [B, T] of the predicted id.

    Rows are padded on the right with weight 0, so that causal attention alone keeps padding out.
    """
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    wanted = weights[:, 1:] > 0
    logits = model.get_output_embeddings()(hidden[:, :-1][wanted]).float()
    losses = cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    kept = weights[:, 1:][wanted]
    return (losses * kept).sum() / kept.sum()


def _learning_rate(step: int, settings: WarmStartSettings) -> float:
    if step < settings.warm_up_steps:
        return settings.learning_rate * (step + 1) / settings.warm_up_steps
    progress = (step - settings.warm_up_steps) / max(1, settings.steps - settings.warm_up_steps)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def _batches(
    demonstrations: Demonstrations, settings: WarmStartSettings, pad_id: int, first: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    given = 0
    while given < settings.steps:
        start = first + given * settings.batch_size
        pool = [demonstrations[start + n] for n in range(settings.batch_size * _BATCHES_PER_POOL)]
        pool.sort(key=lambda demonstration: len(demonstration.ids))
        batches = [pool[n * settings.batch_size : (n + 1) * settings.batch_size] for n in range(_BATCHES_PER_POOL)]
        # Not in the order of length: the last steps of a warm start must not all be long ones.
        for batch in batches[::2] + batches[1::2]:
            if given == settings.steps:
                return
            given += 1
            yield _collate(batch, pad_id)


def _collate(batch: list[Demonstration], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    # Few different widths: libraries cache what they prepare for a shape, and that memory would grow with every one.
    longest = -(-max(len(demonstration.ids) for demonstration in batch) // _WIDTH_STEP) * _WIDTH_STEP
    ids = torch.full((len(batch), longest), pad_id)
    weights = torch.zeros(len(batch), longest)
    for row, demonstration in enumerate(batch):
        length = len(demonstration.ids)
        ids[row, :length] = torch.tensor(demonstration.ids)
        weights[row, :length] = torch.tensor(demonstration.weights)
    return ids, weights
