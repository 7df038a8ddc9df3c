"""Which part of its response each sampled token is in: the thought, the action, a tag, or none of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

PARTS = ("thought", "action", "tags", "other")
"""``thought``: after ``<think>``; ``action``: after ``<action>``, ``<search>`` or ``<answer>``; ``tags``: these tags
and those that close them; ``other``: everything else, the end token included."""

_THOUGHT, _ACTION, _TAGS, _OTHER = range(len(PARTS))

# The environments read thought tags as they stand, and the others whatever their case.
_TAG = re.compile(r"</?think>|(?ai:</?(?:action|search|answer)>)")


class TokenTexts:
    """The text of a token by its id, each decoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """The text of one token alone; a part of a character is shown as U+FFFD."""
        text = self._known.get(token)
        if text is None:
            text = self._known[token] = str(self._tokenizer.decode([token]))
        return text


def response_parts(pieces: Sequence[str], sizes: Sequence[int]) -> Int[Tensor, " N"]:
    """The part of each token, as an index into ``PARTS``.

    The last tag before a token decides. A response whose first tag closes a thought began inside it: the chat template
    opened it. A token that holds a piece of a tag belongs to the tag, whatever else it holds. A tag that is cut short
    is none.

    Args:
        pieces: the texts of the N tokens, response after response.
        sizes: the number of tokens of each response; they add up to N.
    """
    bounds = [0, *torch.tensor(sizes, dtype=torch.long).cumsum(0).tolist()]
    # A character between two responses, so that no tag is made of the end of one and the beginning of the next.
    text = "\0".join("".join(pieces[start:stop]) for start, stop in pairwise(bounds))
    lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.long)
    response = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))
    first = lengths.cumsum(0) - lengths + response
    parts = torch.full((len(pieces),), _OTHER)
    tags = [(*found.span(), _after(found[0])) for found in _TAG.finditer(text)]
    if not tags or not pieces:
        return parts
    # A tag before all others, and one after them, spare a token without a neighbour a case of its own.
    starts, ends, after = torch.tensor([(-1, -1, _OTHER), *tags, (len(text), len(text), _OTHER)]).T.contiguous()
    following = torch.searchsorted(ends, first, right=True).clamp(max=len(tags) + 1)
    own_start = first[torch.tensor(bounds[:-1])[response]]
    own = starts[following - 1] >= own_start
    parts[own] = after[following - 1][own]
    closes = torch.tensor([False, *(text[start:end] == "</think>" for start, end, _ in tags), False])
    own_stop = own_start + torch.tensor([sum(map(len, pieces[a:b])) for a, b in pairwise(bounds)])[response]
    parts[~own & closes[following] & (starts[following] < own_stop)] = _THOUGHT
    parts[starts[following] < first + lengths] = _TAGS
    return parts


def _after(tag: str) -> int:
    """The part that follows a tag."""
    if tag.startswith("</"):
        return _OTHER
    return _THOUGHT if tag == "<think>" else _ACTION
