"""The tokens that the teacher endorsed and rejected most in an iteration, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sdar.callbacks.board.text import page
from sdar.learning.token_table import MIN_COUNT, TokenGap, TokenTable

TAG = "curriculum/tokens"
_LONGEST = 60


def token_lists(table: TokenTable, iteration: int) -> str:
    """Markdown: two lists, farthest from 0 first."""
    heading = f"Iteration {iteration}: tokens that were sampled {MIN_COUNT} times or more, by mean gap in nats"
    return page([(heading, ""), ("Endorsed most", _list(table.endorsed)), ("Rejected most", _list(table.rejected))])


def _list(tokens: Sequence[TokenGap]) -> str:
    if not tokens:
        return "none"
    lines = [f"{one.gap_mean:+9.3f}  {one.count:7,}  {_quoted(one.text)}" for one in tokens]
    return "\n".join(["mean gap  sampled  token", *lines])


def _quoted(text: str) -> str:
    """With marks, as spaces belong to a token."""
    return f"{json.dumps(text[:_LONGEST], ensure_ascii=False)}{'...' if len(text) > _LONGEST else ''}"
