"""Stateless randomness: every draw comes from a generator named by what the draw is for.

A generator is made from (seed, key parts) and thrown away after use. Nothing depends on rank, worker, wall clock or
the order of calls, so a resumed iteration is collected again identically and there is no generator state to save.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_generator(seed: int, *key: int | str) -> np.random.Generator:
    """A Philox generator that is a pure function of ``seed`` and ``key``.

    Order and type of the parts matter: ``(1, "2")``, ``("1", 2)`` and ``("12",)`` name different streams. Streams of
    different keys are independent (counter-based Philox under a 128-bit BLAKE2b key).

    Raises TypeError for a part that is neither an int nor a str (bool included: a flag is not a name).
    """
    digest = hashlib.blake2b(digest_size=16, person=b"sdar.randomness")
    for part in (seed, *key):
        digest.update(_encode(part))
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))


def _encode(part: int | str) -> bytes:
    """Type tag, length and bytes of one part: no two different sequences of parts share an encoding."""
    if isinstance(part, bool) or not isinstance(part, (int, str)):
        raise TypeError(f"a key part of a generator must be an int or a str, not {type(part).__name__} ({part!r})")
    body = str(part).encode("utf-8", "surrogatepass")
    tag = b"s" if isinstance(part, str) else b"i"
    return tag + len(body).to_bytes(8, "little") + body
