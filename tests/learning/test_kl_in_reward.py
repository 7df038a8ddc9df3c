"""The KL to the reference taken from the rewards: what is charged, to whom, and what its gradient is."""

import pytest
import torch

from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.errors import UserError
from sdar.objective.kl import k1_estimate
from sdar.objective.kl_reward import charge_rewards
from sdar.objective.objective import ObjectiveConfig
from toys.training import same_weights, toy_datamodule, toy_module, toy_policy, train, weights

SEEN = Observation("", None, "")


def episode(rewards):
    turns = [Turn([1], [2], "", "", valid=True, observation=SEEN, reward=reward) for reward in rewards]
    return Episode(Task("a", "type", "do it", "train", "hash"), 0, turns, EndReason.FAILURE, success=False)


def run(iterations, context="append", **settings):
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0, episodes_per_step=None, context=context, **settings)
    memory = train(module, toy_datamodule(policy, context=context), iterations)
    return module, memory.curve()


def test_every_turn_is_charged_for_its_own_tokens_by_hand():
    episodes = [episode([0.0, 10.0]), episode([1.0])]
    k1 = torch.tensor([0.5, 0.25, -1.0, 2.0])
    charged = charge_rewards(episodes, k1, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 0]), coefficient=0.1)
    assert [turn.reward for one in charged for turn in one.turns] == pytest.approx([-0.075, 10.1, 0.8])
    assert [one.episode_return for one in episodes] == [10.0, 1.0]


def test_as_a_reward_its_gradient_is_that_of_the_divergence():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    divergence = (policy.exp() * (policy - reference)).sum()
    (wanted,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    # What REINFORCE climbs with the reward -k1, over all samples: sum_v p_v (-k1_v) grad log p_v.
    reward = -k1_estimate(policy, reference).double()
    (climbed,) = torch.autograd.grad((policy.exp().detach() * reward * policy).sum(), logits)
    torch.testing.assert_close(-climbed, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", ["append", "window"])
def test_returns_are_charged_once_the_policy_has_left_the_reference(context):
    module, curve = run(3, context, kl_kind="k1_in_reward", kl_coefficient=0.5)
    assert curve[0]["rollout/kl_charge_mean"] == 0
    prepared = module.report.prepared
    batch, mask = prepared.batch, prepared.batch.response_mask
    k1 = (batch.old_log_probs - batch.reference_log_probs)[mask].double()
    assert curve[2]["rollout/kl_charge_mean"] == pytest.approx(0.5 * float(k1.sum()) / 12, rel=1e-5)
    assert curve[2]["rollout/kl_charge_mean"] != 0
    # No term of the loss: what is logged as loss/kl has no part in the total.
    terms = curve[2]["loss/policy"] + 0.001 * curve[2]["loss/entropy"]
    assert curve[2]["loss/total"] == pytest.approx(terms, rel=1e-4, abs=1e-7)
    assert curve[2]["loss/kl"] > 0


def test_the_charge_reaches_the_weights_and_a_reference_that_was_not_left_charges_nothing():
    charged, without = {"kl_kind": "k1_in_reward", "kl_coefficient": 0.5}, {"kl_coefficient": 0.0}
    assert same_weights(weights(run(1, **charged)[0]), weights(run(1, **without)[0]))
    assert not same_weights(weights(run(2, **charged)[0]), weights(run(2, **without)[0]))


def test_a_charge_needs_a_policy_term():
    with pytest.raises(UserError, match="kl_kind=k1_in_reward charges rewards, but policy_coefficient=0"):
        ObjectiveConfig(policy_coefficient=0.0, kl_kind="k1_in_reward")
