"""Which episodes are played at a time."""

from __future__ import annotations


def waves(total: int, limit: int) -> list[range]:
    """Cut 0 .. total - 1 into the fewest consecutive waves of at most ``limit``; sizes differ by at most 1."""
    count = -(-total // limit)
    return [range(total * wave // count, total * (wave + 1) // count) for wave in range(count)]
