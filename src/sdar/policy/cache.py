"""A key/value cache whose rows have different lengths.

A conversation grows by a ragged block per turn: observations differ in length, and responses end at different steps.
In a cache where all rows share one length, every turn would leave holes that are stored, masked and attended over from
then on. Here each row is written at its own positions in preallocated buffers, so a row is always the plain sequence
of its tokens, and a step never copies the history.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin

from sdar.errors import UserError

_LEAST_GROWTH, _MOST_GROWTH = 128, 1024
"""Tokens per row by which buffers grow."""


def room(capacity: int, length: int) -> int:
    """Tokens per row that buffers of ``capacity`` have once rows of ``length``, which is more, are in them.

    They grow by a quarter, so that a long conversation is copied about as often as a short one, within bounds: a short
    one is rarely copied, and a long one does not keep a quarter of its memory free.
    """
    return length + min(max(capacity // 4, _LEAST_GROWTH), _MOST_GROWTH)


@dataclass
class _Block:
    """Where the current block goes; see :meth:`SlotCache.place`. ``numbers`` [B, 1] of the rows ``span``."""

    numbers: Tensor
    span: slice
    positions: Tensor
    length: int
    first: bool
    rows: int
    longest: int


class SlotLayer(CacheLayerMixin):
    """Keys and values [B, heads, capacity, D] of one layer."""

    is_sliding = False
    is_croppable = False
    keys: Tensor
    values: Tensor

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Without a circle: the buffers are freed with the last reference to the cache, not when garbage is looked for.
        self.cache: SlotCache = weakref.proxy(cache)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate empty buffers for all rows, with the heads and dtype of the first block."""
        rows = self.cache.block.rows
        self.keys = key_states.new_zeros(rows, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(rows, value_states.shape[1], 0, value_states.shape[3])
        self.is_initialized = True

    def fill(self, keys: Tensor, values: Tensor) -> None:
        """Take keys and values [B, heads, capacity, D] that were computed before."""
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write a block [B, heads, N, D]; returns its rows' keys and values up to the longest of them (views)."""
        if torch.is_autocast_enabled(key_states.device.type):
            # Rotation leaves keys in float32; attention would cast all of them in every later pass.
            computed = torch.get_autocast_dtype(key_states.device.type)
            key_states, value_states = key_states.to(computed), value_states.to(computed)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        block = self.cache.block
        if block.longest > self.keys.shape[2]:
            capacity = self.keys.shape[2]
            padding = (0, 0, 0, room(capacity, block.longest) - capacity)
            self.keys, self.values = pad(self.keys, padding), pad(self.values, padding)
        if block.first:
            self.keys[block.span, :, : block.length] = key_states
            self.values[block.span, :, : block.length] = value_states
        else:
            # Two index tensors with a slice between them address [B, N, heads, D].
            self.keys[block.numbers, :, block.positions] = key_states.transpose(1, 2)
            self.values[block.numbers, :, block.positions] = value_states.transpose(1, 2)
        return self.keys[block.span, :, : block.length], self.values[block.span, :, : block.length]

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

    @property
    def capacity(self) -> int:
        """Tokens per row that its buffers have room for."""
        layer = self.slot_layers[0]
        return int(layer.keys.shape[2]) if layer.is_initialized else 0

    @property
    def nbytes(self) -> int:
        """Bytes of its buffers."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.slot_layers if layer.is_initialized)

    def place(
        self,
        positions: Tensor,
        length: int,
        first: bool = False,
        *,
        start: int = 0,
        rows: int | None = None,
        longest: int | None = None,
    ) -> None:
        """Set where the next block goes, and which rows it is of.

        Args:
            positions: [B, N], where each id is written.
            length: of the longest of these rows after the block.
            first: whether every one of these rows starts at 0, so that they are empty before the block.
            start: number of the first of them; the others follow.
            rows: of the cache; None: these.
            longest: length for which there must be room, where other blocks of a turn are longer; None: ``length``.
        """
        count = positions.shape[0]
        numbers = start + torch.arange(count, device=positions.device)[:, None]
        span = slice(start, start + count)
        self.block = _Block(numbers, span, positions, length, first, rows or count, longest or length)

    def select_rows(self, rows: Tensor) -> None:
        """Keep the given rows, in that order; a row may occur more than once."""
        for layer in self.slot_layers:
            layer.select_rows(rows)


def check_room(
    rows: int, length: int, token_bytes: int, device: torch.device, limit: float | None, *, held: int = 0
) -> None:
    """Refuse a cache that would not fit, before the device runs out in the middle of a turn.

    Args:
        rows: conversations that are played at once.
        length: tokens per row that it is about to have room for.
        token_bytes: of a token, in all layers.
        device: of the cache.
        limit: bytes that it may have; None: what it has and what is free on a GPU, no limit elsewhere.
        held: tokens per row that it has room for now, which are given back as it grows.

    Raises:
        UserError: with the arithmetic, naming ``rollout.max_concurrent_episodes``.
    """
    if limit is None:
        if device.type != "cuda":
            return
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        limit = float(torch.cuda.mem_get_info(device)[0] + unused + rows * held * token_bytes)
    needed = rows * length * token_bytes
    if needed > limit:
        raise UserError(
            f"rollout.max_concurrent_episodes must be <= {int(limit / (length * token_bytes))} here, got {rows} "
            f"conversations at once: the key/value cache of {rows} x {length} tokens x {token_bytes} bytes needs "
            f"{needed / 1e9:.2f} GB, and {limit / 1e9:.2f} GB are free"
        )
