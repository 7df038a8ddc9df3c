"""A key/value cache whose rows have different lengths.

A conversation grows by a ragged block per turn: observations differ in length, and responses end at different steps.
In a cache where all rows share one length, every turn would leave holes that are stored, masked and attended over from
then on. Here each row is written at its own positions in preallocated buffers, so a row is always the plain sequence
of its tokens, and a step never copies the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin

_GROWTH_TOKENS = 128
"""Buffers grow by this many tokens per row, so they are rarely copied."""


@dataclass
class _Block:
    """Where the current block goes: rows [B, 1], positions [B, N], and the length of the longest row after it."""

    rows: Tensor
    positions: Tensor
    length: int
    first: bool


class SlotLayer(CacheLayerMixin):
    """Keys and values [B, heads, capacity, D] of one layer."""

    is_sliding = False
    is_croppable = False
    keys: Tensor
    values: Tensor

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate empty buffers for the rows, heads and dtype of the first block."""
        self.keys = key_states.new_zeros(*key_states.shape[:2], 0, key_states.shape[3])
        self.values = value_states.new_zeros(*value_states.shape[:2], 0, value_states.shape[3])
        self.is_initialized = True

    def fill(self, keys: Tensor, values: Tensor) -> None:
        """Take keys and values [B, heads, capacity, D] that were computed before."""
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write a block [B, heads, N, D] and return all keys and values up to the longest row (views)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        block = self.cache.block
        if block.length > self.keys.shape[2]:
            padding = (0, 0, 0, block.length + _GROWTH_TOKENS - self.keys.shape[2])
            self.keys, self.values = pad(self.keys, padding), pad(self.values, padding)
        if block.first:
            self.keys[:, :, : block.length] = key_states
            self.values[:, :, : block.length] = value_states
        else:
            # Two index tensors with a slice between them address [B, N, heads, D].
            self.keys[block.rows, :, block.positions] = key_states.transpose(1, 2)
            self.values[block.rows, :, block.positions] = value_states.transpose(1, 2)
        return self.keys[:, :, : block.length], self.values[:, :, : block.length]

    def select_rows(self, rows: Tensor) -> None:
        """See :meth:`SlotCache.select_rows`."""
        if self.is_initialized:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - the block has it
        """Number of keys attended over, and where they start."""
        return self.cache.block.length, 0

    def get_seq_length(self) -> int:
        """Length of the longest row before the current block."""
        block = self.cache.block
        return block.length - block.positions.shape[1]

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class SlotCache(Cache):
    """One :class:`SlotLayer` per decoder layer; :meth:`place` is called before each forward pass."""

    def __init__(self, num_layers: int) -> None:
        self.slot_layers = [SlotLayer(self) for _ in range(num_layers)]
        super().__init__(layers=[*self.slot_layers])
        self.block: _Block

    def place(self, positions: Tensor, length: int, first: bool = False) -> None:
        """Set where the next block goes: positions [B, N], and the length of the longest row after it.

        ``first``: every row starts at 0, so the cache is empty before the block.
        """
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None]
        self.block = _Block(rows, positions, length, first)

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows, in that order; a row may occur more than once."""
        for layer in self.slot_layers:
            layer.select_rows(rows)
