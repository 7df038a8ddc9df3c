"""Which rows begin alike, and how far."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from sdar.learning.batch import TokenRows

FEWEST = 16
"""Ids that rows must have in common: fewer save less than it costs to put them together again."""


def shared_beginnings(rows: TokenRows, groups: Sequence[Hashable]) -> list[int]:
    """For each row, how many of its first ids all rows of its group have; 0 for a row that is alone in its group.

    The token that predicts a row's first response token is left out, so every scored token has its own state in the
    rest of the row. ``groups`` names the group of each row. Rows without a response share nothing.
    """
    shared = [0] * len(groups)
    if not rows.response_mask.any():
        return shared
    members: dict[Hashable, list[int]] = {}
    scored = rows.response_mask.any(dim=1).tolist()
    first = rows.response_mask.int().argmax(dim=1).tolist()
    for row, group in enumerate(groups):
        if scored[row]:
            members.setdefault(group, []).append(row)
    for of_group in members.values():
        if len(of_group) == 1:
            continue
        most = min(first[row] for row in of_group) - 1
        ids = rows.ids[torch.tensor(of_group), : max(most, 0)]
        count = int((ids == ids[:1]).all(dim=0).long().cumprod(0).sum())
        if count >= FEWEST:
            for row in of_group:
                shared[row] = count
    return shared
