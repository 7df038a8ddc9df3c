"""TokenBatch and the packers that make it from episodes.

Shapes, stated once for the whole project: B rows, T tokens (the longest row). A row is packaging, and packing has two
halves. A *layout* says which turns lie one after the other in a row: all turns of an episode in one row
(:func:`_append_layout`), or each turn, whose prompt is whole, in a row of its own (:func:`_window_layout`). The
*assembly* of tensors from rows, with or without the privileged block, knows nothing of the layout. Every layout gives
every episode at least one row, an empty one if need be: the plan of the steps counts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sdar.episode import Episode, Turn
from sdar.errors import UserError


class PrivilegedContextError(UserError):
    """The privileged block and the student's own ids do not fit into the model's context together.

    Nothing is cut to make them fit: a teacher that saw half of its text would be a different teacher without a word.
    """


@dataclass(kw_only=True)
class TokenBatch:
    """Rows of tokens, right-padded. All log-probs are float32, in nats, and 0 outside the response mask.

    ids                  fed and sampled ids, ``pad_id`` after a row's end
    attention_mask       True on every id of the row, False on padding
    response_mask        True exactly on the sampled ids that are learned from
    advantage            advantage of the turn on each of its sampled ids, 0 elsewhere
    turn_index           0-based turn of each sampled id, -1 elsewhere
    episode_index        position of the row's episode in the packed list
    old_log_probs        of the policy that sampled (theta_old)
    teacher_log_probs    of the same ids with the privileged block in the context, at the student's positions
    reference_log_probs  of the frozen policy that the KL term holds on to
    sampler_log_probs    as they were sampled, where it was not by the policy itself; None: it was

    A row without responses (an episode ended by an error, or before its first response) is all padding.
    """

    ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    response_mask: Bool[Tensor, "B T"]
    advantage: Float[Tensor, "B T"]
    turn_index: Int[Tensor, "B T"]
    episode_index: Int[Tensor, " B"]
    old_log_probs: Float[Tensor, "B T"] | None = None
    teacher_log_probs: Float[Tensor, "B T"] | None = None
    reference_log_probs: Float[Tensor, "B T"] | None = None
    sampler_log_probs: Float[Tensor, "B T"] | None = None

    def __post_init__(self) -> None:
        """Refuse tensors whose shapes do not belong together (ValueError): broadcasting would hide the mistake."""
        for name, tensor in self._tensors().items():
            expected = self.ids.shape[:1] if name == "episode_index" else self.ids.shape
            if tensor.shape != expected:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected)}")

    def _tensors(self) -> dict[str, Tensor]:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.ids.shape[0])

    @property
    def rows(self) -> TokenRows:
        """Ids and masks alone."""
        return TokenRows(self.ids, self.attention_mask, self.response_mask)

    def lengths(self) -> list[int]:
        """Number of ids of each row without padding; 0 for a row that has nothing to score."""
        return self.rows.lengths()

    def episode_shares(self) -> Tensor:
        """[B] float64: the share of its episode that each row is, all rows alike; 0 for rows without responses.

        Over the rows of any set of whole episodes they add up to the number of episodes that have responses.
        """
        full = self.response_mask.any(dim=1).double()
        rows = full.new_zeros(len(self) and int(self.episode_index.max()) + 1)
        rows.index_add_(0, self.episode_index, full)
        return full / rows[self.episode_index].clamp(min=1.0)

    def select(self, rows: Sequence[int]) -> TokenBatch:
        """The named rows in the given order, trimmed to the longest of them."""
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self.ids.device)
        lengths = self.attention_mask[index].sum(dim=1)
        width = int(lengths.max()) if len(index) else 0
        return TokenBatch(
            **{
                name: tensor[index] if name == "episode_index" else tensor[index, :width]
                for name, tensor in self._tensors().items()
            }
        )

    def to(self, device: torch.device | str) -> TokenBatch:
        """A copy with every tensor on ``device``."""
        return TokenBatch(**{name: tensor.to(device) for name, tensor in self._tensors().items()})


class TokenRows(NamedTuple):
    """Rows of ids that are scored: the student's, or the teacher's with the privileged block in their context.

    The k-th masked id of a teacher's row is the k-th masked id of the same row of the TokenBatch.
    """

    ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    response_mask: Bool[Tensor, "B T"]

    def lengths(self) -> list[int]:
        """Number of ids of each row without padding."""
        return [int(n) for n in self.attention_mask.sum(dim=1).tolist()]

    def select(self, rows: Sequence[int]) -> TokenRows:
        """The named rows in the given order, trimmed to the longest of them."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        width = int(self.attention_mask[index].sum(dim=1).max()) if len(index) else 0
        return TokenRows(*(tensor[index, :width] for tensor in self))

    @classmethod
    def nobody(cls, device: torch.device | str) -> TokenRows:
        """One row of two ids of which none is scored: what a rank runs that has nothing to learn from."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=device)
        return cls(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))

    def to(self, device: torch.device | str) -> TokenRows:
        """A copy with every tensor on ``device``."""
        return TokenRows(*(tensor.to(device) for tensor in self))


@dataclass(frozen=True)
class _Row:
    """One row before it is a tensor: which turns, in order, of which episode."""

    episode_index: int
    turns: tuple[tuple[int, Turn], ...]


def _learnable_turns(episode: Episode) -> list[tuple[int, Turn]]:
    """Turns up to the last one that has sampled ids; none for an episode that an error ended, or that is left out."""
    if episode.end.is_error or not episode.in_loss:
        return []
    last = max((k for k, turn in enumerate(episode.turns) if turn.response_ids), default=-1)
    return list(enumerate(episode.turns))[: last + 1]


def _append_layout(episodes: Sequence[Episode]) -> list[_Row]:
    """One growing conversation per episode: one row, all turns."""
    return [_Row(i, tuple(_learnable_turns(episode))) for i, episode in enumerate(episodes)]


def _window_layout(episodes: Sequence[Episode]) -> list[_Row]:
    """A fresh prompt every turn: a row per turn, in order; an episode without a response has one empty row."""
    rows: list[_Row] = []
    for i, episode in enumerate(episodes):
        turns = [(k, turn) for k, turn in _learnable_turns(episode) if turn.response_ids]
        rows += [_Row(i, (turn,)) for turn in turns] or [_Row(i, ())]
    return rows


_LAYOUTS: dict[str, Callable[[Sequence[Episode]], list[_Row]]] = {"append": _append_layout, "window": _window_layout}
"""One per value of ``rollout.context``."""


def pack(
    episodes: Sequence[Episode],
    turn_advantages: Sequence[Sequence[float]],
    pad_id: int,
    context: str = "append",
) -> TokenBatch:
    """Pack episodes into rows, in the given order; ``context`` is how they were played.

    ``turn_advantages`` holds one number per turn of each episode. Ids after the last response never enter a row.
    ValueError when the advantages do not match the turns.
    """
    rows = _LAYOUTS[context](episodes)
    if [len(values) for values in turn_advantages] != [len(episode.turns) for episode in episodes]:
        raise ValueError("turn_advantages must hold one number per turn of each episode")
    ids: list[list[int]] = []
    mask: list[list[bool]] = []
    advantage: list[list[float]] = []
    turn_index: list[list[int]] = []
    sampler: list[list[float]] = []
    for row in rows:
        row_ids, row_mask = _row_ids(row, block=())
        row_advantage, row_turns = [0.0] * len(row_ids), [-1] * len(row_ids)
        row_sampler = [0.0] * len(row_ids)
        start = 0
        for k, turn in row.turns:
            start += len(turn.context_ids)
            stop = start + len(turn.response_ids)
            row_advantage[start:stop] = [float(turn_advantages[row.episode_index][k])] * (stop - start)
            row_turns[start:stop] = [k] * (stop - start)
            row_sampler[start:stop] = turn.sampler_log_probs or row_sampler[start:stop]
            start = stop
        ids.append(row_ids)
        mask.append(row_mask)
        advantage.append(row_advantage)
        turn_index.append(row_turns)
        sampler.append(row_sampler)
    by_another = any(turn.sampler_log_probs for row in rows for _, turn in row.turns)
    return TokenBatch(
        ids=_pad(ids, pad_id, torch.long),
        attention_mask=_pad([[True] * len(row_ids) for row_ids in ids], False, torch.bool),
        response_mask=_pad(mask, False, torch.bool),
        advantage=_pad(advantage, 0.0, torch.float32),
        turn_index=_pad(turn_index, -1, torch.long),
        episode_index=torch.tensor([row.episode_index for row in rows], dtype=torch.long),
        sampler_log_probs=_pad(sampler, 0.0, torch.float32) if by_another else None,
    )


def pack_teacher(
    episodes: Sequence[Episode],
    privileged: Sequence[Sequence[int]],
    pad_id: int,
    context_tokens: int,
    context: str = "append",
) -> TokenRows:
    """The rows of :func:`pack` with each episode's privileged block spliced in at its turns' splice index.

    ``privileged`` holds the ids of one block per episode, tokenized alone; the empty block gives the student's ids
    exactly. ``context_tokens`` is the longest row the model takes. PrivilegedContextError when a row with its block
    is longer than that; ValueError when a block has no place in its row (it would be lost without a word).
    """
    rows = _LAYOUTS[context](episodes)
    if len(privileged) != len(episodes):
        raise ValueError(f"{len(privileged)} privileged blocks for {len(episodes)} episodes")
    ids: list[list[int]] = []
    mask: list[list[bool]] = []
    for row in rows:
        block = list(privileged[row.episode_index])
        row_ids, row_mask = _row_ids(row, block)
        if block and len(row_ids) > context_tokens:
            episode = episodes[row.episode_index]
            raise PrivilegedContextError(
                f"The teacher's context of task {episode.task.task_id!r}, group member {episode.member}, needs "
                f"{len(row_ids)} tokens ({len(row_ids) - len(block)} of the student and {len(block)} privileged), but "
                f"the model takes {context_tokens}; shorten the skills or the episodes, privileged text is never cut."
            )
        ids.append(row_ids)
        mask.append(row_mask)
    return TokenRows(
        ids=_pad(ids, pad_id, torch.long),
        attention_mask=_pad([[True] * len(row_ids) for row_ids in ids], False, torch.bool),
        response_mask=_pad(mask, False, torch.bool),
    )


def _row_ids(row: _Row, block: Sequence[int]) -> tuple[list[int], list[bool]]:
    """Ids and response mask of one row, with ``block`` spliced into every turn that has a place for it."""
    ids: list[int] = []
    mask: list[bool] = []
    spliced = False
    for k, turn in row.turns:
        context = list(turn.context_ids)
        if block and turn.splice_index is not None:
            if not 0 <= turn.splice_index <= len(context):
                raise ValueError(f"splice index {turn.splice_index} of turn {k} lies outside its {len(context)} ids")
            context[turn.splice_index : turn.splice_index] = block
            spliced = True
        ids += context
        mask += [False] * len(context)
        ids += turn.response_ids
        mask += [True] * len(turn.response_ids)
    if block and row.turns and not spliced:
        raise ValueError(f"no turn of episode {row.episode_index} says where its privileged block belongs")
    return ids, mask


def _pad(rows: Sequence[Sequence[Any]], value: float, dtype: torch.dtype) -> Tensor:
    """[B, T] of ``dtype``, right-padded with ``value``."""
    out = torch.full((len(rows), max(map(len, rows), default=0)), value, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return out


def align(
    teacher_scores: Float[Tensor, "B U"], teacher_mask: Bool[Tensor, "B U"], student_mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Move scores of the teacher's rows, of U tokens, to the student's positions; 0 outside ``student_mask``.

    Both masks mark the same sampled ids, so the k-th marked score of a row goes to the k-th marked position of the
    same row. ValueError when a row's counts differ.
    """
    if not torch.equal(teacher_mask.sum(dim=1), student_mask.sum(dim=1)):
        raise ValueError("teacher and student rows do not mark the same number of sampled ids")
    aligned = teacher_scores.new_zeros(student_mask.shape)
    # Boolean indexing runs row by row, left to right, on both sides.
    aligned[student_mask] = teacher_scores[teacher_mask]
    return aligned
