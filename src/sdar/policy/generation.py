"""Samples the turns of many conversations in one batch; the key/value cache is kept from turn to turn.

Only new tokens are computed: at each turn the tokens since the last sampled one, then one token per step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from sdar.policy.cache import SlotCache, check_room, room
from sdar.policy.fixed_decoding import FixedDecoder
from sdar.policy.forward import computed_dtype, evaluation_mode, hidden_states, logits_from_hidden
from sdar.policy.row_parts import row_parts
from sdar.policy.sampling import TokenSampler
from sdar.policy.shape import ModelShape
from sdar.policy.windows import AttentionWindows


@dataclass
class _Row:
    """One live conversation: its slot, the number of its tokens in the cache, and the sampled one that is not."""

    slot: int
    cached: int
    pending: list[int]


@dataclass(frozen=True)
class _Part:
    """Rows of the cache that are fed together: the number of the first, all there are, and the longest of all."""

    start: int
    rows: int
    longest: int


class TurnGenerator:
    """Turn-by-turn generation for a fixed set of slots, one conversation each.

    ``start(n)`` opens slots 0 .. n-1; every ``respond`` appends tokens to the live conversations and samples one
    response for each. The weights must not change between ``start`` and the last ``respond``.

    pad_id             id that fills blocks; any id works, because padding is never attended to.
    end_ids            tokens that end a response once one of them is sampled.
    temperature, top_p, top_k   see :class:`sdar.policy.sampling.TokenSampler`.
    max_response_tokens  >= 1, longest response, the end token included.
    windows            which earlier tokens the model's layers attend to.
    compute_dtype      of matrix products, by autocast; None: that of the weights.
    step, look_every, prefill_tokens   see :class:`sdar.rollout.settings.DecodeSettings`.
    memory_bytes       that the cache may grow to; None: what is free on a GPU, no limit elsewhere.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad_id: int,
        end_ids: Collection[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_response_tokens: int,
        windows: AttentionWindows | None = None,
        compute_dtype: torch.dtype | None = None,
        step: Literal["auto", "plain", "fixed", "captured"] = "auto",
        look_every: int = 16,
        prefill_tokens: int = 16_384,
        memory_bytes: float | None = None,
    ) -> None:
        if max_response_tokens < 1:
            raise ValueError(f"max_response_tokens must be >= 1, got {max_response_tokens}")
        self.model = model
        self.pad_id = pad_id
        self.windows = windows or AttentionWindows()
        self.sampler = TokenSampler(temperature, top_p, top_k)
        self.max_response_tokens = max_response_tokens
        self.compute_dtype = compute_dtype
        self.step = step
        self.look_every = look_every
        self.prefill_tokens = prefill_tokens
        self.memory_bytes = memory_bytes
        self._shape = ModelShape.of(model.config.get_text_config())
        self._ends = np.array(sorted(end_ids), dtype=np.int64)
        self.start(0)

    def start(self, num_slots: int) -> None:
        """Forget everything and open ``num_slots`` empty conversations."""
        self._rows = [_Row(slot, 0, []) for slot in range(num_slots)]
        self._cache = SlotCache(self.model.config.get_text_config().num_hidden_layers)
        self._log_probs: dict[int, list[float]] = {}

    def respond(
        self, new_ids: Mapping[int, Sequence[int]], uniforms: Mapping[int, NDArray[np.float64]]
    ) -> dict[int, list[int]]:
        """Sample one response per given slot.

        ``new_ids[slot]``  ids since the slot's last sampled token (the whole prompt in the first turn). If that
        response was cut before its end token, these ids begin with the end token that was not sampled.
        ``uniforms[slot]`` [max_response_tokens] numbers in [0, 1), one per token that may be sampled.

        Returns the sampled ids of each slot, including the end token if it was sampled. Live slots that are not given
        have ended: they leave the batch and never come back. Raises ValueError for a slot that is not live or has no
        tokens to start from.
        """
        self._keep_rows(new_ids)
        if not self._rows:
            return {}
        numbers = np.stack([np.asarray(uniforms[row.slot], dtype=np.float64) for row in self._rows])
        if numbers.shape[1] < self.max_response_tokens:
            raise ValueError(f"uniforms must have {self.max_response_tokens} numbers per slot, got {numbers.shape[1]}")
        blocks = [[*row.pending, *new_ids[row.slot]] for row in self._rows]
        if not all(blocks):
            raise ValueError("new_ids must have at least one token per slot before its first response")
        before = [row.cached for row in self._rows]
        try:
            with torch.no_grad(), evaluation_mode(self.model), self._precision():
                logits = self._prefill(blocks)
                for row, block in zip(self._rows, blocks, strict=True):
                    row.cached += len(block)
                decode = self._decode if self._plain else self._decode_fixed
                responses = decode(logits, torch.from_numpy(numbers))
        except BaseException:
            for row, cached in zip(self._rows, before, strict=True):
                row.cached = cached  # so that the same call may be made again
            raise
        for row, response in zip(self._rows, responses, strict=True):
            row.pending = response[-1:]
        return {row.slot: response for row, response in zip(self._rows, responses, strict=True)}

    def log_probs(self, slot: int) -> list[float] | None:
        """Of the slot's last response, nats, at the sampling temperature and before any filter.

        None unless it was sampled in 16 bits, whose rounding is not that of the scores.
        """
        return self._log_probs.get(slot)

    def rewind(self, slot: int, tokens: int) -> int:
        """Go back to the first ``tokens`` of a live conversation; returns how many of them need not be fed again.

        What follows is fed as ``new_ids``, also what was sampled before.
        """
        row = next(row for row in self._rows if row.slot == slot)
        row.cached, row.pending = min(row.cached, tokens), []
        return row.cached

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key/value cache."""
        return self._cache.nbytes

    def another(self) -> TurnGenerator:
        """One for other conversations, with the same weights and settings."""
        other = copy(self)
        other.start(0)
        return other

    def close(self) -> None:
        """Free the key/value cache."""
        self.start(0)

    @property
    def _plain(self) -> bool:
        device = self.model.device.type
        # Tokens are drawn in float64, which Apple's GPU does not support.
        return self.step == "plain" or device == "mps" or (self.step == "auto" and device != "cuda")

    @property
    def _scored(self) -> bool:
        """Whether log-probs of what is sampled are kept."""
        return self.sampler.temperature > 0 and computed_dtype(self.model) != torch.float32

    def _precision(self) -> AbstractContextManager[object]:
        if self.compute_dtype is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.compute_dtype)

    def _keep_rows(self, new_ids: Mapping[int, Sequence[int]]) -> None:
        live = {row.slot for row in self._rows}
        if unknown := sorted(set(new_ids) - live):
            raise ValueError(f"new_ids must name live slots, got {unknown}, which are not live")
        kept = [index for index, row in enumerate(self._rows) if row.slot in new_ids]
        if len(kept) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in kept]
        self._cache.select_rows(torch.tensor(kept, dtype=torch.long, device=self.model.device))

    def _prefill(self, blocks: list[list[int]]) -> Tensor:
        """Feed one ragged block per row, padded on the right; logits [B, V] after each row's last token.

        Padding is written after the row's own tokens, where nothing attends to it and the next token overwrites it.
        """
        if any(row.cached for row in self._rows):
            return self._prefill_rows(blocks, [row.cached for row in self._rows])
        # The members of a group start with the same prompt: it is computed once and copied.
        distinct = {block: index for index, block in enumerate(dict.fromkeys(map(tuple, blocks)))}
        logits = self._prefill_rows([list(block) for block in distinct], [0] * len(distinct))
        source = torch.tensor([distinct[tuple(block)] for block in blocks], device=logits.device)
        self._cache.select_rows(source)
        return logits[source]

    def _prefill_rows(self, blocks: list[list[int]], lengths: list[int]) -> Tensor:
        sizes, cached = np.array([len(block) for block in blocks]), np.array(lengths)
        parts = row_parts(sizes.tolist(), self.prefill_tokens)
        lengths_of = [(sizes[part.start : part.stop], cached[part.start : part.stop]) for part in parts]
        longest = max(int(before.max() + own.max()) for own, before in lengths_of)
        logits = []
        for part, (own, before) in zip(parts, lengths_of, strict=True):
            ids = np.full((len(own), int(own.max())), self.pad_id, dtype=np.int64)
            for index, row in enumerate(part):
                ids[index, : len(blocks[row])] = blocks[row]
            places = before[:, None] + np.arange(ids.shape[1])
            whole = _Part(part.start, len(blocks), longest)
            hidden = self._feed(ids, places, last=before + own - 1, part=whole)
            ends = torch.from_numpy(own - 1).to(hidden.device)
            rows = torch.arange(len(own), device=hidden.device)
            logits.append(logits_from_hidden(self.model, hidden[rows, ends]))
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _decode(self, logits: Tensor, uniforms: Tensor) -> list[list[int]]:
        # Tokens are drawn in float64, which Apple's GPU does not support.
        drawing = torch.device("cpu") if logits.device.type == "mps" else logits.device
        uniforms = uniforms.to(drawing)
        cached = np.array([row.cached for row in self._rows])
        going = np.ones(len(self._rows), dtype=bool)
        counts = np.zeros(len(self._rows), dtype=np.int64)
        sampled: list[NDArray[np.int64]] = []
        scores: list[NDArray[np.float32]] = []
        scored = self._scored
        while True:
            drawn = self.sampler.sample(logits.to(drawing), uniforms[:, len(sampled)])
            tokens = drawn.cpu().numpy()
            sampled.append(tokens)
            if scored:
                scores.append(self.sampler.drawn_log_probs(logits.to(drawing), drawn).cpu().numpy())
            counts += going
            going = going & ~np.isin(tokens, self._ends)
            if len(sampled) == self.max_response_tokens or not going.any():
                break
            # Finished rows get padding after their last token; it is never attended to.
            fed = np.where(going, tokens, self.pad_id)[:, None]
            hidden = self._feed(fed, cached[:, None], last=cached)
            cached += going
            logits = logits_from_hidden(self.model, hidden[:, -1])
        for row, length in zip(self._rows, cached.tolist(), strict=True):
            row.cached = length
        return self._responses(np.stack(sampled, axis=1), np.stack(scores, axis=1) if scores else None, counts)

    def _decode_fixed(self, logits: Tensor, uniforms: Tensor) -> list[list[int]]:
        """As :meth:`_decode`, in steps of one shape."""
        device, cached = logits.device, np.array([row.cached for row in self._rows])
        decoder = FixedDecoder(
            self.model,
            self._cache,
            self.windows,
            self.sampler,
            lengths=torch.from_numpy(cached).to(device),
            uniforms=uniforms[:, : self.max_response_tokens].to(device),
            ends=torch.from_numpy(self._ends).to(device),
            pad_id=self.pad_id,
            scored=self._scored,
            capture=self.step == "captured" and device.type == "cuda",
        )
        self._check_room(decoder.capacity)
        sampled, scores = decoder.decode(logits, self.look_every)
        table = sampled.cpu().numpy()
        ended = np.isin(table, self._ends)
        counts = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, table.shape[1])
        for row, count in zip(self._rows, counts.tolist(), strict=True):
            row.cached += count - 1  # the last one has not been fed
        return self._responses(table, None if scores is None else scores.cpu().numpy(), counts)

    def _responses(
        self, table: NDArray[np.int64], scores: NDArray[np.float32] | None, counts: NDArray[np.int64]
    ) -> list[list[int]]:
        """The first tokens of each row, so many of them; their log-probs are kept."""
        if scores is not None:
            rows = zip(self._rows, counts.tolist(), strict=True)
            self._log_probs = {row.slot: scores[i, :count].tolist() for i, (row, count) in enumerate(rows)}
        return [table[index, :count].tolist() for index, count in enumerate(counts.tolist())]

    def _check_room(self, length: int) -> None:
        """UserError where the cache would have to grow beyond what is free."""
        capacity = self._cache.capacity
        if self._shape is not None and length > capacity:
            size = self._shape.cache_bytes(computed_dtype(self.model).itemsize)
            tokens = room(capacity, length)
            check_room(len(self._rows), tokens, size, self.model.device, self.memory_bytes, held=capacity)

    def _feed(
        self, ids: NDArray[np.int64], places: NDArray[np.int64], last: NDArray[np.int64], part: _Part | None = None
    ) -> Tensor:
        """Hidden states [B, N, H] of ids [B, N] written at places [B, N]; ``last`` [B]: place of the last real id.

        ``part``: which rows of the cache these are; None: all.
        """
        device = self.model.device
        length = int(places.max()) + 1
        part = part or _Part(0, len(ids), length)
        first = length == ids.shape[1]
        self._check_room(part.longest)
        positions = torch.from_numpy(places).to(device)
        self._cache.place(positions, length, first, start=part.start, rows=part.rows, longest=part.longest)
        # The model itself makes the masks of the first block, in which rows are as in any padded batch.
        mask = None if first else self.windows.masks(positions, length, computed_dtype(self.model))
        return hidden_states(
            self.model,
            torch.from_numpy(ids).to(device),
            attention_mask=mask,
            # Padding takes the position of the last real token, so no position exceeds the model's limit.
            position_ids=torch.from_numpy(np.minimum(places, last[:, None])).to(device),
            past_key_values=self._cache,
            use_cache=True,
        )
