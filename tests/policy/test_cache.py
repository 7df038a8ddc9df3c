"""Promises of the key/value cache: it holds what was written, however it grows, and grows rarely and within bounds."""

from __future__ import annotations

import pytest
import torch

from sdar.policy.cache import SlotCache, room


def test_tokens_are_kept_however_the_buffers_grow() -> None:
    """Rows of different lengths, one token at a time, over several sizes of the buffers."""
    steps, generator = 700, torch.Generator().manual_seed(0)
    written = torch.randn(2, 3, steps, 4, generator=generator)
    lengths = torch.tensor([0, 40])
    cache = SlotCache(1)
    (layer,) = cache.slot_layers
    sizes = set()
    cache.place(torch.arange(40).expand(2, 40), 40, first=True)
    layer.update(written[:, :, :40].clone(), written[:, :, :40].clone())
    for step in range(steps - 40):
        places = (lengths + step)[:, None]
        cache.place(places, 41 + step)
        block = torch.stack([written[row, :, int(places[row])] for row in range(2)])[:, :, None]
        keys, values = layer.update(block, -block)
        sizes.add(layer.keys.shape[2])
    assert len(sizes) >= 3
    for row, length in enumerate((steps - 40, steps)):
        torch.testing.assert_close(keys[row, :, :length], written[row, :, :length], rtol=0, atol=0)
    torch.testing.assert_close(values[1, :, 40:], -written[1, :, 40:], rtol=0, atol=0)


@pytest.mark.parametrize("most", [600, 8192, 65_536])
def test_buffers_grow_by_a_quarter_within_bounds(most: int) -> None:
    """One token at a time, as responses are written."""
    capacity, copied = 0, 0
    while capacity < most:
        grown = room(capacity, capacity + 1)
        assert 128 <= grown - capacity - 1 <= max(128, min(capacity / 4, 1024))
        copied += capacity
        capacity = grown
    by_constant = sum(range(0, most, 129))
    assert copied <= by_constant
    assert copied < by_constant / 3 or most < 8192
