"""The KL to the reference as part of the reward, in place of a loss term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from sdar.episode import Episode


def charge_rewards(
    episodes: Sequence[Episode], k1: Tensor, episode: Tensor, turn: Tensor, *, coefficient: float
) -> list[Episode]:
    """The episodes with rewards r_k - coefficient * (sum of k1 over the response tokens of turn k).

    k1 = log pi_old - log pi_ref of a sampled token is an unbiased estimate of the KL, of either sign. As a loss its
    gradient has mean zero; as a reward it is the KL penalty of policy-gradient methods (arXiv 2203.02155, section 3.5).
    The given episodes are left as they are: success and the figures of the rollout know nothing of the charge.

    Args:
        episodes: B' episodes, whole groups.
        k1: [N] nats, of the sampled tokens that are learned from.
        episode: [N] int64, position of the token's episode in ``episodes``.
        turn: [N] int64, 0-based turn in that episode.
        coefficient: >= 0, units of reward per nat.
    """
    charges = [[0.0] * len(one.turns) for one in episodes]
    for i, k, value in zip(episode.tolist(), turn.tolist(), k1.double().tolist(), strict=True):
        charges[i][k] += coefficient * value
    return [
        replace(one, turns=[replace(t, reward=t.reward - charge) for t, charge in zip(one.turns, own, strict=True)])
        for one, own in zip(episodes, charges, strict=True)
    ]
