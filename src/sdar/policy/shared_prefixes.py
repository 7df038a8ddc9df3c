"""Rows that begin alike: the keys and values of a beginning are computed once, for all rows and batches that have it.

A group plays one task, and the teacher reads the same text for all of its members, so much of what it is fed is the
same. Only passes without gradient can share: a backward pass needs the activations of every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from sdar.policy.cache import SlotCache
from sdar.policy.forward import computed_dtype, hidden_states
from sdar.policy.windows import AttentionWindows

_Layers = list[tuple[Tensor, Tensor]]
"""Keys and values [heads, P, D] of each layer."""


class PrefixStore:
    """Beginnings of rows at one state of a model's weights; make another one when the weights have changed.

    windows  which earlier tokens the model's layers attend to.
    pad_id   id that fills rows; any id works, because padding is never attended to.
    """

    def __init__(self, windows: AttentionWindows, pad_id: int) -> None:
        self.windows = windows
        self.pad_id = pad_id
        self._known: dict[tuple[int, ...], _Layers] = {}

    @torch.no_grad()
    def states(
        self, model: PreTrainedModel, ids: Tensor, attention_mask: Tensor, score_mask: Tensor, shared: Sequence[int]
    ) -> Tensor:
        """Hidden states [N, H] that predict the masked tokens, row by row, as those of the whole rows up to rounding.

        Args:
            model: in evaluation mode.
            ids: [B, T], padded on the right.
            attention_mask: [B, T], the real tokens.
            score_mask: [B, T], the tokens to predict.
            shared: for each row, how many of its first ids are looked up. The token before the first masked one must
                not be among them, because it predicts that one (ValueError).
        """
        device, lengths = ids.device, attention_mask.sum(dim=1)
        start = torch.tensor(list(shared), device=device)
        width = max(int((lengths - start).max()), 1)
        places = start[:, None] + torch.arange(width, device=device)
        real = places < lengths[:, None]
        columns = places.clamp(max=ids.shape[1] - 1)
        # Of a row's token t, the state at t - 1 is wanted.
        following = pad(score_mask[:, 1:], (0, 1)).gather(1, columns) & real
        if int(following.sum()) != int(score_mask.sum()):
            raise ValueError("shared must end before the token that predicts a row's first masked one")
        length = int(places.max()) + 1
        cache = self._cache(model, [tuple(row[:n]) for row, n in zip(ids.tolist(), shared, strict=True)], length)
        cache.place(places, length)
        hidden = hidden_states(
            model,
            torch.where(real, ids.gather(1, columns), self.pad_id),
            attention_mask=self.windows.masks(places, length, computed_dtype(model)),
            # Padding takes the position of the last real token, so no position exceeds the model's limit.
            position_ids=torch.minimum(places, (lengths - 1).clamp(min=0)[:, None]),
            past_key_values=cache,
            use_cache=True,
        )
        return hidden[following]

    def _cache(self, model: PreTrainedModel, beginnings: list[tuple[int, ...]], capacity: int) -> SlotCache:
        """A cache whose rows hold these beginnings, with room for so many tokens."""
        distinct = list(dict.fromkeys(beginnings))
        self._learn(model, [ids for ids in distinct if ids and ids not in self._known])
        cache = SlotCache(model.config.get_text_config().num_hidden_layers)
        number = {ids: index for index, ids in enumerate(distinct)}
        source = torch.tensor([number[ids] for ids in beginnings], device=model.device)
        known = [self._known.get(ids) for ids in distinct]
        if any(known):
            for index in range(len(cache.slot_layers)):
                keys, values = ([None if layers is None else layers[index][i] for layers in known] for i in (0, 1))
                cache.slot_layers[index].fill(_stacked(keys, source, capacity), _stacked(values, source, capacity))
        return cache

    def _learn(self, model: PreTrainedModel, new: list[tuple[int, ...]]) -> None:
        """Compute keys and values of beginnings, in one batch."""
        if not new:
            return
        width = max(map(len, new))
        ids = torch.tensor([[*one, *[self.pad_id] * (width - len(one))] for one in new], device=model.device)
        places = torch.arange(width, device=ids.device).expand_as(ids)
        last = torch.tensor([len(one) - 1 for one in new], device=ids.device)
        cache = SlotCache(model.config.get_text_config().num_hidden_layers)
        cache.place(places, width, first=True)
        positions = torch.minimum(places, last[:, None])
        hidden_states(model, ids, position_ids=positions, past_key_values=cache, use_cache=True)
        for row, one in enumerate(new):
            # Copies: views would keep the padding alive.
            self._known[one] = [
                (layer.keys[row, :, : len(one)].clone(), layer.values[row, :, : len(one)].clone())
                for layer in cache.slot_layers
            ]


@dataclass(frozen=True)
class SharedRows:
    """How rows that are scored share their beginnings.

    ``store``   holds the beginnings at the present weights
    ``tokens``  for each row, how many of its first ids are shared; see :meth:`PrefixStore.states`
    """

    store: PrefixStore
    tokens: Sequence[int]

    def of(self, rows: Sequence[int]) -> SharedRows:
        """Those of some of the rows."""
        return SharedRows(self.store, [self.tokens[row] for row in rows])


def _stacked(parts: Sequence[Tensor | None], source: Tensor, capacity: int) -> Tensor:
    """[B, heads, capacity, D]: for each row the part that it begins with; None: nothing."""
    some = next(part for part in parts if part is not None)
    stacked = some.new_zeros(len(parts), some.shape[0], capacity, some.shape[2])
    for index, part in enumerate(parts):
        if part is not None:
            stacked[index, :, : part.shape[1]] = part
    return stacked.index_select(0, source)
