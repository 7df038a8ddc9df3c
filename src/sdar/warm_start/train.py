"""Supervised training of a tiny model on a stream of demonstrations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from sdar.warm_start.settings import WarmStartSettings

if TYPE_CHECKING:
    from sdar.warm_start.demonstrations import Demonstration


class Demonstrations(Protocol):
    """A seekable stream of demonstrations."""

    def __getitem__(self, index: int) -> Demonstration:
        """Demonstration number ``index``."""
        ...


def fast_products() -> str:
    """The faster number format for matrix products on this processor.

    It is bfloat16 if oneDNN has instructions for it. Otherwise bfloat16 would be emulated, seven times slower than
    float32 on a processor with AVX2 only.
    """
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if native else "float32"


_WIDTH_STEP = 32

_BATCHES_PER_POOL = 4
"""Number of batches within which demonstrations are sorted by length, to reduce padding."""


def train_warm_start(
    model: PreTrainedModel,
    demonstrations: Demonstrations,
    settings: WarmStartSettings,
    pad_id: int,
    first: int,
    report: Callable[[int, float, float], None],
) -> None:
    """Train ``model`` in place with a new optimizer, on demonstrations from number ``first`` on.

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

    Rows are padded on the right with weight 0, so that causal attention suffices to exclude padding.
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
        # Not in order of length: the last steps of a warm start must not all have long demonstrations.
        for batch in batches[::2] + batches[1::2]:
            if given == settings.steps:
                return
            given += 1
            yield _collate(batch, pad_id)


def _collate(batch: list[Demonstration], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    # Few distinct widths: libraries cache kernels per shape, and memory would grow with every new one.
    longest = -(-max(len(demonstration.ids) for demonstration in batch) // _WIDTH_STEP) * _WIDTH_STEP
    ids = torch.full((len(batch), longest), pad_id)
    weights = torch.zeros(len(batch), longest)
    for row, demonstration in enumerate(batch):
        length = len(demonstration.ids)
        ids[row, :length] = torch.tensor(demonstration.ids)
        weights[row, :length] = torch.tensor(demonstration.weights)
    return ids, weights
