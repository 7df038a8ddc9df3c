"""Prompts are computed in parts of bounded size, and what is sampled does not depend on the bound."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdar.policy import generation
from sdar.policy.row_parts import row_parts
from toys.conversations import END, generator, play
from toys.models import tiny_random_model


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    most=st.integers(1, 300),
)
def test_parts_are_all_rows_in_order_within_the_bound(sizes: list[int], most: int) -> None:
    parts = [[sizes[row] for row in part] for part in row_parts(sizes, most)]
    assert [size for part in parts for size in part] == sizes
    assert all(len(part) == 1 or len(part) * max(part) <= most for part in parts)
    for part, following in pairwise(parts):  # none ends before it has to
        assert (len(part) + 1) * max(*part, following[0]) > most


@pytest.mark.parametrize("step", ["plain", "fixed"])
@pytest.mark.parametrize("window", [False, True], ids=["append", "window"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), most=st.sampled_from([1, 20, 37, 60]))
def test_responses_do_not_depend_on_the_bound(step: str, window: bool, seed: int, most: int) -> None:
    """Rows of different lengths that end at different turns, most of them in parts of their own."""
    model = tiny_random_model(seed=seed % 5)
    with torch.no_grad():
        model.get_input_embeddings().weight[END] *= 1.5
    whole = play(model, seed, window=window, step=step)
    assert play(model, seed, window=window, step=step, prefill_tokens=most) == whole


def test_no_pass_is_wider_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a prompt that is longer by itself."""
    passes: list[tuple[int, int]] = []
    plain = generation.hidden_states

    def counted(model, ids, **settings):
        passes.append(tuple(ids.shape))
        return plain(model, ids, **settings)

    monkeypatch.setattr(generation, "hidden_states", counted)
    player = generator(tiny_random_model(), prefill_tokens=32, max_response_tokens=1)
    player.start(6)
    prompts = {slot: [3 + slot] * length for slot, length in enumerate((10, 12, 10, 40, 3, 3))}
    player.respond(prompts, {slot: torch.rand(1).numpy() for slot in prompts})
    assert passes == [(2, 12), (1, 10), (1, 40), (2, 3)]
    passes.clear()
    player.respond({slot: [7, 8, 9, 10] for slot in prompts}, {slot: torch.rand(1).numpy() for slot in prompts})
    assert passes == [(6, 5)]  # the sampled token has not been fed yet
