"""Beginnings that are computed once: scores as of whole rows, and each beginning fed once for all batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdar.policy.log_probs import score_tokens, token_states
from sdar.policy.shared_prefixes import PrefixStore, SharedRows
from sdar.policy.windows import AttentionWindows
from toys.families import BY_NAME
from toys.training import toy_policy

WIDTH = 24


def rows(vocabulary: int, shared: list[int], lengths: list[int]) -> tuple[Any, Any, Any]:
    """Rows of random ids; row k begins like row 0 with ``shared[k]`` ids, and is scored two ids later."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, vocabulary, (len(shared), WIDTH), generator=generator)
    places = torch.arange(WIDTH)
    for row, count in enumerate(shared):
        ids[row, :count] = ids[0, :count]
    real = places < torch.tensor(lengths)[:, None]
    scored = real & (places > torch.tensor(shared)[:, None])
    return ids, real, scored


@pytest.mark.parametrize("layers", [1, 3])
def test_scores_are_those_of_whole_rows(layers: int) -> None:
    policy = toy_policy(layers=layers)
    shared = [12, 12, 0, 5, 12]
    batch = rows(40, shared, [24, 15, 24, 9, 0])
    store = PrefixStore(AttentionWindows(), policy.pad_id)
    with torch.no_grad():
        whole = score_tokens(policy.model, *batch, entropy=True, states=True)
        again = score_tokens(policy.model, *batch, entropy=True, states=True, shared=SharedRows(store, shared))
    torch.testing.assert_close(again.log_probs, whole.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.entropy, whole.entropy, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.states, whole.states, atol=1e-5, rtol=0)


def test_a_window_reaches_back_into_the_beginning() -> None:
    """With a window of 8 a row of 24 has tokens that see all of the beginning, a part of it, and nothing."""
    family = BY_NAME["mistral"]
    model = family.model(sliding_window=8, num_hidden_layers=3)
    windows = AttentionWindows({"sliding_attention": 8})
    batch = rows(model.config.vocab_size, [12, 12], [24, 20])
    with torch.no_grad():
        whole = score_tokens(model, *batch).log_probs
        again = score_tokens(model, *batch, shared=SharedRows(PrefixStore(windows, 0), [12, 12])).log_probs
        blind = SharedRows(PrefixStore(AttentionWindows(), 0), [12, 12])
        without = score_tokens(model, *batch, shared=blind).log_probs
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=0)
    assert (without - whole).abs().max() > 1e-3  # the window matters


def test_each_beginning_is_fed_once_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = toy_policy()
    fed: list[tuple[int, ...]] = []

    def counted(module: Any, args: Any, kwargs: Any) -> None:
        fed.append(tuple(kwargs["input_ids"].shape))

    policy.model.get_decoder().register_forward_pre_hook(counted, with_kwargs=True)
    store = PrefixStore(AttentionWindows(), policy.pad_id)
    first, second = rows(40, [12, 12], [24, 20]), rows(40, [12], [18])
    for batch, shared in ((first, [12, 12]), (second, [12])):
        token_states(policy.model, *batch, SharedRows(store, shared))
    assert fed == [(1, 12), (2, 12), (1, 6)]


def test_in_bfloat16_the_difference_is_one_of_rounding() -> None:
    policy = toy_policy(layers=2)
    batch = rows(40, [12, 12], [24, 20])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = score_tokens(policy.model, *batch).log_probs
        shared = SharedRows(PrefixStore(AttentionWindows(), policy.pad_id), [12, 12])
        again = score_tokens(policy.model, *batch, shared=shared).log_probs
    torch.testing.assert_close(again, whole, atol=5e-2, rtol=0)


def test_a_beginning_that_predicts_a_scored_token_is_refused() -> None:
    policy = toy_policy()
    batch = rows(40, [12, 12], [24, 20])
    with pytest.raises(ValueError, match="must end before the token that predicts"):
        token_states(policy.model, *batch, SharedRows(PrefixStore(AttentionWindows(), policy.pad_id), [13, 12]))
