"""Which earlier tokens the layers of a model attend to: all, a sliding window, or those of the same chunk.

The rows of a rollout's cache have different lengths, so the model cannot make the masks of its later blocks itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PretrainedConfig

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


@dataclass(frozen=True)
class AttentionWindows:
    """How the masks of a model are given.

    ``sizes``    kind of layer -> tokens of its window or chunk; None: all earlier tokens
    ``by_kind``  whether the model takes a mask for each kind; otherwise it takes one for all layers, of the only kind
    """

    sizes: Mapping[str, int | None] = field(default_factory=lambda: {FULL: None})
    by_kind: bool = False

    @property
    def limits(self) -> list[int]:
        """The different windows, smallest first."""
        return sorted({size for size in self.sizes.values() if size is not None})

    def masks(self, positions: Tensor, length: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Additive masks [B, 1, N, length] for tokens at positions [B, N]: of all layers, or by kind of layer.

        A token sees its own row up to itself. Additive, because every attention implementation understands it.
        """
        made = {kind: _mask(kind, size, positions, length, dtype) for kind, size in self.sizes.items()}
        if not self.by_kind:
            (mask,) = made.values()
            return mask
        return made


def candidates(config: PretrainedConfig) -> Iterator[AttentionWindows]:
    """The ways in which a model with this (text) configuration may take its masks, the likeliest first.

    The last one has no window; it is right for as many tokens as the smallest window has.
    """
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    known = {FULL: None, SLIDING: window, CHUNKED: chunk}
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds and window:
        yield AttentionWindows({SLIDING: int(window)})
    elif any(known.get(kind) for kind in kinds):
        sizes = {kind: known[kind] for kind in known if kind in kinds}
        # Some models make the masks of kinds that they have not, or call for them by name.
        yield AttentionWindows({**dict.fromkeys((FULL, SLIDING), None), **sizes}, by_kind=True)
        if len(sizes) == 1:
            yield AttentionWindows(sizes)
    yield AttentionWindows()


def _mask(kind: str, size: int | None, positions: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    keys = torch.arange(length, device=positions.device)
    own = positions[:, :, None]
    seen = keys <= own
    if size is not None and size < length:
        seen &= keys // size == own // size if kind == CHUNKED else keys > own - size
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
    return mask[:, None]
