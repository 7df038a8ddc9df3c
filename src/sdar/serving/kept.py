"""Keys and values of earlier conversations, so that the next request computes what is new in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdar.policy.generation import TurnGenerator


class KeptConversations:
    """The conversations that were used last, as many as fit into ``max_bytes``; each is in slot 0 of a generator.

    ``make``  makes a generator without a conversation. It samples one token per response.
    """

    def __init__(self, make: Callable[[], TurnGenerator], max_bytes: int) -> None:
        self._make = make
        self._max_bytes = max_bytes
        self._kept: list[tuple[list[int], TurnGenerator]] = []

    def take(self, ids: Sequence[int]) -> tuple[TurnGenerator, list[int]]:
        """A generator for a conversation, and those of its ids that are still to be fed to it, at least one.

        A kept conversation is used where it begins with these ids, or they with it: one that has merely the same
        system message stays for those who go on with it.
        """
        ids = list(ids)
        shared = [_shared(ids, kept) for kept, _ in self._kept]
        fitting = [
            (length, place)
            for place, (length, (kept, _)) in enumerate(zip(shared, self._kept, strict=True))
            if length in (len(ids), len(kept))
        ]
        if not fitting:
            made = self._make()
            made.start(1)
            return made, ids
        length, place = max(fitting)
        _, generator = self._kept.pop(place)
        return generator, ids[generator.rewind(0, min(length, len(ids) - 1)) :]

    def give(self, ids: Sequence[int], generator: TurnGenerator) -> None:
        """Keep a conversation, and forget those that were used least lately; one that is too large is not kept."""
        if generator.cache_bytes > self._max_bytes:
            return
        self._kept.append((list(ids), generator))
        while self._kept and sum(kept.cache_bytes for _, kept in self._kept) > self._max_bytes:
            self._kept.pop(0)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of ids that both begin with."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(place for place in range(length) if left[place] != right[place])
