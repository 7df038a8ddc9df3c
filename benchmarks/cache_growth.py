"""What does it cost that the key/value cache grows? By a quarter within bounds, and by a constant, as it did before.

    python benchmarks/cache_growth.py [--rows 8] [--tokens 8192] [--layers 3] [--heads 2] [--size 64]

Tokens are written one at a time into all layers, as a response is, without a model: what is left is the writing itself
and the copying of the buffers. Figures are CPU seconds; memory is that of the buffers at the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from sdar.policy import cache
from sdar.policy.cache import SlotCache

RULES: dict[str, Callable[[int, int], int]] = {
    "by 128": lambda _, length: length + 128,
    "by a quarter": cache.room,
}


def main() -> None:
    """Measure both rules, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"rows": 8, "tokens": 8192, "layers": 3, "heads": 2, "size": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in RULES}
    for _ in range(3):
        for name, rule in RULES.items():
            cache.room = rule
            started = time.process_time()
            copies, size = _write(given)
            seconds[name].append(time.process_time() - started)
            print(f"{name:>12}: {seconds[name][-1]:7.2f} s, {copies} copies, {size / 2**20:.0f} MiB", flush=True)
    ratio = min(seconds["by a quarter"]) / min(seconds["by 128"])
    print(f"by a quarter / by 128: {ratio:.3f} (least of three)")


@torch.no_grad()
def _write(given: argparse.Namespace) -> tuple[int, int]:
    """Copies of a layer's buffers, and bytes of all buffers at the end."""
    written = SlotCache(given.layers)
    block = torch.ones(given.rows, given.heads, 1, given.size)
    copies, capacity = 0, 0
    for token in range(given.tokens):
        written.place(torch.full((given.rows, 1), token), token + 1)
        for layer in written.slot_layers:
            layer.update(block, block)
        now = written.slot_layers[0].keys.shape[2]
        copies += now != capacity
        capacity = now
    return copies, sum(2 * layer.keys.numel() * 4 for layer in written.slot_layers)


if __name__ == "__main__":
    main()
