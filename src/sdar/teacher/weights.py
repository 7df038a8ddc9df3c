"""The weights of the teacher, and when they are used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sdar.config.fields import BelowOne, Lax, settings
from sdar.errors import UserError
from sdar.objective.divergence import Divergence
from sdar.policy.forward import evaluation_mode
from sdar.policy.language_model import LanguageModel
from sdar.policy.sharding import is_sharded
from sdar.policy.shared_prefixes import PrefixStore


class TeacherSource(StrEnum):
    """Origin of the teacher's weights. They never take a gradient."""

    OLD = "old"
    """The student's own, before the iteration's first update."""
    CURRENT = "current"
    """The student's current ones, which change with every optimizer step."""
    EMA = "ema"
    """A moving average of the student's, updated at the end of every iteration."""
    INITIAL = "initial"
    """The run's initial weights, the reference of the KL term."""
    OTHER = "other"
    """Those of another model, which never change."""


@settings(frozen=True)
class TeacherWeights:
    """Settings of the teacher's weights. UserError for settings that contradict each other.

    ``source``       see :class:`TeacherSource`
    ``ema_decay``    weight of the past in the average (ema)
    ``other``        the other model (other), or a function that loads it
    ``share_prefixes``  compute what rows of a task have in common at their beginning once, keys and values, instead of
                     in every row: the same log-probs up to rounding. Rows under FSDP2 are computed whole
    ``keep_hidden``  keep the teacher's hidden states and output head of every iteration, which divergences over the
                     whole vocabulary need (old)
    """

    source: Annotated[TeacherSource, Lax] = TeacherSource.OLD
    ema_decay: BelowOne = 0.99
    other: LanguageModel | Callable[[], LanguageModel] | None = None
    keep_hidden: bool = False
    share_prefixes: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        source = self.source.value
        if self.source is TeacherSource.OTHER and self.other is None:
            raise UserError("teacher.source=other needs a model; set teacher.other")
        if self.source is not TeacherSource.OTHER and self.other is not None:
            raise UserError(f"teacher.other names a model, but teacher.source={source}; set teacher.source=other")
        if self.keep_hidden and self.source is not TeacherSource.OLD:
            raise UserError(
                f"teacher.keep_hidden=true needs teacher.source=old, but teacher.source={source}, whose weights are "
                "available during the update; set teacher.keep_hidden=false, or teacher.source=old"
            )


def check_needs(divergence: Divergence, source: TeacherSource, *, keep_hidden: bool) -> None:
    """UserError if the divergence needs more than the teacher's source keeps, naming both settings."""
    if divergence.full_vocabulary and source is TeacherSource.OLD and not keep_hidden:
        raise UserError(
            f"divergence={divergence.name} needs the teacher's whole distributions, but teacher.source=old does not "
            "keep them until the update; set divergence=sampled or sampled_rkl, teacher.source=current, ema, initial "
            "or other, or teacher.keep_hidden=true"
        )
    if keep_hidden and not divergence.full_vocabulary:
        raise UserError(
            f"teacher.keep_hidden=true, but divergence={divergence.name} needs no hidden states; set "
            "teacher.keep_hidden=false, or a divergence over the whole vocabulary"
        )


def check_sharding(source: TeacherSource) -> None:
    """UserError for what sharded weights (FSDP2) do not support."""
    if source is TeacherSource.EMA:
        raise UserError(
            "teacher.source=ema needs a copy of all weights, but trainer.strategy shards them; set teacher.source=old, "
            "current or initial, or trainer=ddp"
        )


class TeacherModel:
    """The model that scores the teacher's rows.

    ``copies`` are frozen models of the teacher alone. The owner of this object moves them to the student's device.
    """

    def __init__(
        self,
        settings: TeacherWeights,
        policy: LanguageModel,
        initial: Callable[[], AbstractContextManager[PreTrainedModel]],
    ) -> None:
        """``initial`` is a context with the run's initial weights.

        UserError: an average of 16-bit weights, or another model with a different tokenizer or a shorter context.
        """
        self.settings = settings
        self.copies: list[PreTrainedModel] = []
        self._student = policy.model
        self._policy = policy
        self._initial = initial
        self.check_precision()
        if settings.source is TeacherSource.EMA:
            self.copies.append(copy.deepcopy(policy.model).requires_grad_(False).train(False))
        elif settings.other is not None:
            other = settings.other if isinstance(settings.other, LanguageModel) else settings.other()
            _check_other(other, policy)
            self._policy = other
            self.copies.append(other.model.requires_grad_(False).train(False))

    def check_precision(self) -> None:
        """UserError where the student's weights are too coarse for an average of them."""
        if self.settings.source is TeacherSource.EMA:
            _check_precision(self._student)

    @property
    def is_student(self) -> bool:
        """Whether the teacher has the student's own weights, before the update."""
        return self.settings.source in (TeacherSource.OLD, TeacherSource.CURRENT)

    @property
    def moves_during_update(self) -> bool:
        """Whether an optimizer step changes the teacher."""
        return self.settings.source is TeacherSource.CURRENT

    def prefix_store(self) -> PrefixStore | None:
        """For rows that begin alike, until the teacher's weights change; None: rows are to be computed whole."""
        # Sharded weights are fetched by passes that all ranks make equally often.
        if not self.settings.share_prefixes or is_sharded(self._student):
            return None
        return PrefixStore(self._policy.windows, self._policy.pad_id)

    @contextmanager
    def model(self) -> Iterator[PreTrainedModel]:
        """A context with the teacher, without gradient or dropout; the student may differ inside it."""
        own = nullcontext(self.copies[0] if self.copies else self._student)
        opened = self._initial() if self.settings.source is TeacherSource.INITIAL else own
        with opened as model, torch.no_grad(), evaluation_mode(model):
            # Casts of weights made here must not be used with gradient, and vice versa.
            torch.clear_autocast_cache()
            try:
                yield model
            finally:
                torch.clear_autocast_cache()

    @torch.no_grad()
    def follow(self) -> None:
        """Update the average with the student; called once at the end of an iteration."""
        for name, weight in self._averaged().items():
            weight.lerp_(self._student.get_parameter(name).detach(), 1.0 - self.settings.ema_decay)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights, for the checkpoint; {} for all other sources, which can be restored without it."""
        return {name: weight.detach().clone() for name, weight in self._averaged().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the result of :meth:`state`.

        UserError: the state is that of another source.
        """
        own = self._averaged()
        if set(own) != set(state):
            raise UserError(
                f"ckpt_path names a checkpoint of a run with another teacher.source; this run has "
                f"{self.settings.source.value!r}"
            )
        for name, weight in own.items():
            weight.copy_(state[name])

    def _averaged(self) -> dict[str, Tensor]:
        """The averaged parameters: the copies of those that are trained; {} for all other sources."""
        if self.settings.source is not TeacherSource.EMA:
            return {}
        trained = {name for name, weight in self._student.named_parameters() if weight.requires_grad}
        return {name: weight for name, weight in self.copies[0].named_parameters() if name in trained}


def _check_precision(model: PreTrainedModel) -> None:
    trained = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    if trained != {torch.float32}:
        raise UserError(
            f"teacher.source=ema needs float32 weights, but the trained weights are "
            f"{', '.join(sorted(map(str, trained)))}, too coarse for an average; set model.dtype=float32 and "
            "trainer.precision=32-true or bf16-mixed"
        )


def _check_other(other: LanguageModel, policy: LanguageModel) -> None:
    """UserError unless the other model has the same tokenizer and at least as long a context."""
    if not same_tokenizer(other.tokenizer, policy.tokenizer):
        raise UserError(
            f"teacher.other must have the tokenizer of the student {policy.name!r}, because it scores the student's "
            f"tokens, got {other.name!r} with another tokenizer"
        )
    if other.context_tokens < policy.context_tokens:
        raise UserError(
            f"teacher.other must have a context of >= {policy.context_tokens} tokens, that of the student "
            f"{policy.name!r}, got {other.name!r} with {other.context_tokens} tokens"
        )


_PROBE = "Pick up the mug (3) and, well, heat it: 17 °C is not warm.\n\n<think>naïve?</think>"


def same_tokenizer(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids: the same vocabulary, and the same ids for a probe text."""
    if one.get_vocab() != other.get_vocab():
        return False
    pieces: list[Any] = [tokenizer(_PROBE, add_special_tokens=False)["input_ids"] for tokenizer in (one, other)]
    return bool(pieces[0] == pieces[1])
