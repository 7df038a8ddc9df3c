"""The training objective: which terms there are, on which tokens, and how they become one number.

    total = sum over terms k of  coefficient_k * sum_t(mask_k * loss_k) / denominator_k

Every term has its own mask and its own denominator. Denominators are counts over the whole optimizer step, all
micro-batches and ranks included, and are passed in: then no cut into micro-batches changes loss or gradient. A term
whose coefficient is 0 is left out of the sum, and not added as 0 times something: the sum of the others stays
bit-equal to an objective that never knew the term.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

import torch
from annotated_types import Gt
from torch import Tensor

from sdar.config.fields import AtLeastOne, BelowOne, NotNegative, settings
from sdar.errors import UserError
from sdar.objective.divergence import Divergence, Sampled
from sdar.objective.gate import GapGate, Gate
from sdar.objective.kl import IN_REWARD, k1_estimate, kl_estimate
from sdar.objective.policy_gradient import LOG_RATIO_LIMIT, policy_gradient_loss
from sdar.objective.tokens import DistillationTokens, TokenScores


class Tokens(Protocol):
    """What is known of the tokens before the update (``sdar.learning.batch.TokenBatch``)."""

    response_mask: Tensor
    advantage: Tensor
    turn_index: Tensor
    old_log_probs: Tensor | None
    teacher_log_probs: Tensor | None
    reference_log_probs: Tensor | None


Ratio = Literal["token", "turn", "episode"]
KLKind = Literal["k2", "k3", "k1_in_reward"]


@settings(frozen=True)
class ConstantLength:
    """A length that no episode changes: what Dr. GRPO divides an episode's token sum by (arXiv 2503.20783, section 3).

    ``turns``            >= 1, the most turns of an episode
    ``response_tokens``  >= 1, the most tokens of a response
    """

    turns: AtLeastOne
    response_tokens: AtLeastOne

    @property
    def tokens(self) -> int:
        """Sampled tokens of the longest episode there can be."""
        return self.turns * self.response_tokens


@settings(frozen=True)
class ObjectiveConfig:
    """Coefficients and shapes of the terms. UserError for a value outside its range.

    ``policy_coefficient``        >= 0  clipped policy gradient
    ``clip_low``, ``clip_high``   in [0, 1) and >= 0: the ratio is clipped to [1 - clip_low, 1 + clip_high]
    ``dual_clip``                 > 1, or None: cap of the loss, in units of -A, where A < 0
    ``ratio``                     token, turn or episode: what has one ratio, the geometric mean of its tokens' ratios;
                                  an episode must be one row (append)
    ``policy_length``             None: the policy term is the mean over the tokens of the step; a constant length: the
                                  sum of theirs, divided by that length times the number of episodes (Dr. GRPO)
    ``kl_coefficient``            >= 0  KL to the reference; ``kl_kind``: k2 or k3, losses, or k1_in_reward: no loss
                                  term, the coefficient (units of reward per nat) charges the rewards instead
    ``entropy_coefficient``       >= 0  entropy bonus (the term's loss is minus the entropy)
    ``distillation_coefficient``  >= 0  distillation (lambda of the paper)
    ``gate``                      how far each token is distilled
    ``divergence``                what is minimized between teacher and student

    The defaults are the paper's for ALFWorld (arXiv 2605.15155, table of hyper-parameters, and the released scripts).
    """

    policy_coefficient: NotNegative = 1.0
    clip_low: BelowOne = 0.2
    clip_high: NotNegative = 0.2
    dual_clip: Annotated[float, Gt(1)] | None = 3.0
    ratio: Ratio = "token"
    policy_length: ConstantLength | None = None
    kl_coefficient: NotNegative = 0.01
    kl_kind: KLKind = "k3"
    entropy_coefficient: NotNegative = 0.001
    distillation_coefficient: NotNegative = 0.01
    gate: Gate = field(default_factory=GapGate)
    divergence: Divergence = field(default_factory=Sampled)

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        self.divergence.check_gate(self.gate)
        if self.reward_kl_coefficient != 0 and self.policy_coefficient == 0:
            raise UserError(
                f"algorithm.objective.kl_kind={self.kl_kind} charges rewards, but policy_coefficient=0 learns from "
                "none; set kl_kind=k2 or k3, or a policy_coefficient above 0"
            )

    def coefficients(self) -> dict[str, float]:
        """Coefficient of each term, in the order in which they are summed."""
        return {
            "policy": self.policy_coefficient,
            "distillation": self.distillation_coefficient,
            "kl": 0.0 if self.kl_kind == IN_REWARD else self.kl_coefficient,
            "entropy": self.entropy_coefficient,
        }

    @property
    def reward_kl_coefficient(self) -> float:
        """Units of reward per nat of KL that rewards are charged; 0: the KL is a loss term, or left out."""
        return self.kl_coefficient if self.kl_kind == IN_REWARD else 0.0

    def scheduled(self, coefficient_factor: float, beta_factor: float, policy_factor: float = 1.0) -> ObjectiveConfig:
        """The objective of an iteration: factors >= 0 of the distillation coefficient, of beta, of the policy term."""
        # Not through the constructor, which refuses an objective without terms: a schedule may take out the last one.
        found = copy.copy(self)
        object.__setattr__(found, "distillation_coefficient", self.distillation_coefficient * coefficient_factor)
        object.__setattr__(found, "policy_coefficient", self.policy_coefficient * policy_factor)
        object.__setattr__(found, "gate", self.gate.scaled(beta_factor))
        return found

    def under(self, gate: Gate) -> ObjectiveConfig:
        """The objective of an optimizer step, with the gate of that step."""
        found = copy.copy(self)
        object.__setattr__(found, "gate", gate)
        return found

    @property
    def wants_entropy(self) -> bool:
        """Whether a term with a coefficient above 0 reads the student's entropy."""
        return self.entropy_coefficient != 0 or (self.distillation_coefficient != 0 and self.gate.needs_entropy)


@dataclass(frozen=True)
class Term:
    """One term: ``loss`` [B, T] float32 per token, before its coefficient; ``mask`` [B, T] bool: where it counts."""

    loss: Tensor
    mask: Tensor

    def sum(self) -> Tensor:
        """Sum over the mask, 0-dim. What lies outside the mask, nan included, has no part in it."""
        return torch.where(self.mask, self.loss, 0.0).sum()


@dataclass(frozen=True)
class TokenLosses:
    """The terms of a micro-batch, and detached sums for the log.

    ``diagnostics`` maps a tag to a 0-dim float32 sum over the micro-batch's response tokens; summed over an iteration
    (and ranks) and divided by ``diagnostics["tokens"]``, summed likewise, it is the metric of that tag.
    """

    terms: dict[str, Term]
    diagnostics: dict[str, Tensor]


def term_masks(batch: Tokens, config: ObjectiveConfig) -> dict[str, Tensor]:
    """Mask [B, T] of each term: on all sampled tokens, whatever the coefficient."""
    return dict.fromkeys(config.coefficients(), batch.response_mask)


def denominators(batch: Tokens, config: ObjectiveConfig, episodes: float = 0.0) -> dict[str, float]:
    """What each term is divided by in these rows. Give it all rows of an optimizer step, and add up the ranks.

    That is the number of tokens that the term counts. The policy term with a constant length has that length times the
    number of episodes instead: ``episodes`` of them have their tokens in these rows (a share of one whose rows are
    spread over several steps; see ``TokenBatch.episode_shares``).
    """
    counts: dict[str, float] = {name: int(mask.sum()) for name, mask in term_masks(batch, config).items()}
    if config.policy_length is not None:
        counts["policy"] = config.policy_length.tokens * episodes
    return counts


def token_losses(scores: TokenScores, batch: Tokens, config: ObjectiveConfig) -> TokenLosses:
    """Loss per token of every term for which the batch has the inputs; float32 whatever the model's dtype.

    A term with coefficient 0 is computed without gradient, for the log alone, where its inputs are at hand. ValueError
    when a term with a coefficient above 0 lacks its inputs.
    """
    available = {
        "policy": batch.old_log_probs is not None,
        "distillation": batch.teacher_log_probs is not None
        and (scores.divergence is not None or not config.divergence.full_vocabulary)
        and (scores.entropy is not None or not config.gate.needs_entropy),
        "kl": batch.reference_log_probs is not None,
        "entropy": scores.entropy is not None,
    }
    masks = term_masks(batch, config)
    scores, batch = _inside(scores, batch)
    terms: dict[str, Term] = {}
    diagnostics: dict[str, Tensor] = {"tokens": batch.response_mask.sum().float()}
    for name, coefficient in config.coefficients().items():
        if not available[name]:
            if coefficient != 0:
                raise ValueError(f"the {name} term has coefficient {coefficient}, but its inputs were not computed")
            continue
        with torch.set_grad_enabled(torch.is_grad_enabled() and coefficient != 0):
            loss, extras = _TERMS[name](scores, batch, config)
        terms[name] = Term(loss, masks[name])
        diagnostics[f"loss/{name}"] = terms[name].sum().detach()
        diagnostics |= {tag: Term(value, masks[name]).sum() for tag, value in extras.items()}
    coefficients = config.coefficients()
    weighted = [coefficients[name] * diagnostics[f"loss/{name}"] for name in terms if coefficients[name] != 0]
    diagnostics["loss/total"] = torch.stack(weighted).sum() if weighted else diagnostics["tokens"] * 0.0
    return TokenLosses(terms, diagnostics)


@dataclass
class _Inside:
    """The tokens of a batch, with 0 for every number outside the response mask."""

    response_mask: Tensor
    advantage: Tensor
    turn_index: Tensor
    old_log_probs: Tensor | None
    teacher_log_probs: Tensor | None
    reference_log_probs: Tensor | None


def _inside(scores: TokenScores, batch: Tokens) -> tuple[TokenScores, Tokens]:
    """Scores and tokens without what lies outside the mask.

    The masked sum alone would not do: a nan there has a part in the gradient, since 0 * nan is nan.
    """

    def kept(values: Tensor | None) -> Tensor | None:
        return None if values is None else torch.where(batch.response_mask, values, 0.0)

    def given(values: Tensor) -> Tensor:
        return torch.where(batch.response_mask, values, 0.0)

    tokens = _Inside(
        batch.response_mask,
        given(batch.advantage),
        batch.turn_index,
        kept(batch.old_log_probs),
        kept(batch.teacher_log_probs),
        kept(batch.reference_log_probs),
    )
    inside = TokenScores(
        given(scores.log_probs),
        entropy=kept(scores.entropy),
        divergence=kept(scores.divergence),
        max_entropy=scores.max_entropy,
    )
    return inside, tokens


def weighted_terms(
    losses: TokenLosses, denominators: Mapping[str, float], config: ObjectiveConfig
) -> dict[str, Tensor]:
    """These rows' share of each term of the step's objective, 0-dim, times its coefficient; those without are left out.

    ``denominators`` count the whole step.
    """
    return {
        name: coefficient * (losses.terms[name].sum() / max(denominators[name], 1))
        for name, coefficient in config.coefficients().items()
        if coefficient != 0
    }


def total_loss(losses: TokenLosses, denominators: Mapping[str, float], config: ObjectiveConfig) -> Tensor:
    """The objective, 0-dim, of these rows' share of the step. ``denominators`` count the whole step.

    The shares of a step's micro-batches add up to the step's loss. ValueError where no term has a coefficient.
    """
    parts = list(weighted_terms(losses, denominators, config).values())
    if not parts:
        raise ValueError("every coefficient is 0: there is no loss")
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


Extras = dict[str, Tensor]


def _policy(scores: TokenScores, batch: Tokens, config: ObjectiveConfig) -> tuple[Tensor, Extras]:
    assert batch.old_log_probs is not None
    loss, clipped = policy_gradient_loss(
        scores.log_probs,
        batch.old_log_probs,
        batch.advantage,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
        segments=_segments(batch, config.ratio),
    )
    log_ratio = (scores.log_probs.detach().float() - batch.old_log_probs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    # The samples come from the old policy, so this form of k3 estimates KL(old || current) and is never negative.
    approx_kl = log_ratio.exp() - 1.0 - log_ratio
    return loss, {"train/clip_fraction": clipped.float(), "train/approx_kl": approx_kl}


def _segments(batch: Tokens, ratio: Ratio) -> Tensor | None:
    """[B, T]: the number of each sampled token's turn or row, -1 elsewhere; None: every token for itself."""
    if ratio == "token":
        return None
    turns = batch.turn_index if ratio == "turn" else torch.zeros_like(batch.turn_index)
    rows = torch.arange(len(turns), device=turns.device)[:, None]
    width = int(turns.max()) + 1 if turns.numel() else 1
    return torch.where(batch.response_mask, rows * width + turns, -1)


def _distillation(scores: TokenScores, batch: Tokens, config: ObjectiveConfig) -> tuple[Tensor, Extras]:
    """Gate times divergence. Teacher and gate are constants.

    With the paper's defaults (gap gate, sampled) the gradient is -gate * grad log pi: a likelihood of the student's own
    tokens, weighted by how much the teacher endorses them, and never larger than the likelihood's own gradient.

    Source: arXiv 2605.15155, section 2.3 and appendix A, Propositions 1, 2 and 4.
    """
    assert batch.teacher_log_probs is not None
    tokens = DistillationTokens(
        student=scores.log_probs,
        teacher=batch.teacher_log_probs,
        old=batch.old_log_probs,
        divergence=scores.divergence,
        entropy=scores.entropy,
        max_entropy=scores.max_entropy,
        advantage=batch.advantage,
        turn=batch.turn_index,
    )
    gate = config.gate.value(tokens)
    loss = config.divergence.token_loss(tokens)
    if not config.divergence.applies_gate:
        loss = gate * loss
    return loss, {"objective/gate_mean": gate, "objective/gap_mean": tokens.gap}


def _kl(scores: TokenScores, batch: Tokens, config: ObjectiveConfig) -> tuple[Tensor, Extras]:
    assert batch.reference_log_probs is not None
    k1 = k1_estimate(scores.log_probs, batch.reference_log_probs)
    kind = "k3" if config.kl_kind == IN_REWARD else config.kl_kind  # of the loss, or of a figure for the log
    return kl_estimate(scores.log_probs, batch.reference_log_probs, kind), {"objective/kl_k1": k1}


def _entropy(scores: TokenScores, _batch: Tokens, _config: ObjectiveConfig) -> tuple[Tensor, Extras]:
    assert scores.entropy is not None
    return -scores.entropy.float(), {}


_TERMS = {"policy": _policy, "distillation": _distillation, "kl": _kl, "entropy": _entropy}
