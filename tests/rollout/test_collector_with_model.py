"""The collector on a real (tiny, random) model: what the scripted generator cannot show."""

from __future__ import annotations

import pytest
import torch

from sdar.episode import EndReason, Episode
from sdar.rollout.collector import Collector, EpisodeRequest
from toys.training import LettersEnvironment, toy_policy, toy_rollout

POLICY = toy_policy()


def collect(concurrent: int = 64, reverse: bool = False, temperature: float = 1.0, members: int = 3) -> list[Episode]:
    environment = LettersEnvironment(tasks=4)
    asked = [EpisodeRequest(task, member) for task in environment.tasks("train") for member in range(members)]
    settings = toy_rollout(temperature=temperature, max_concurrent_episodes=concurrent)
    collector = Collector(POLICY, environment, settings)
    episodes = collector.collect(asked[::-1] if reverse else asked, seed=5, key=("train", 0)).episodes
    return episodes[::-1] if reverse else episodes


def test_tokens_do_not_depend_on_waves_or_order_with_a_real_model() -> None:
    whole = collect()
    assert len({len(episode.turns) for episode in whole}) > 1
    for concurrent in (1, 5):
        assert collect(concurrent, reverse=True) == whole


def test_greedy_members_are_equal() -> None:
    first, second = collect(temperature=0.0, members=2)[:2]
    assert first.turns == second.turns


def test_sampled_tokens_are_greedy_tokens_of_the_whole_conversation() -> None:
    """Token in, token out: the recorded ids, read in one piece, give the sampled ids back."""
    for episode in collect(temperature=0.0, members=1):
        ids: list[int] = []
        for turn in episode.turns:
            ids += turn.context_ids
            for token in turn.response_ids:
                with torch.no_grad():
                    logits = POLICY.model(torch.tensor([ids])).logits[0, -1]
                assert int(logits.argmax()) == token
                ids.append(token)


def test_a_context_that_fills_up_is_an_end_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    free = collect()
    monkeypatch.setattr(POLICY, "context_tokens", 60)
    for before, after in zip(free, collect(), strict=True):
        assert after.turns == before.turns[: len(after.turns)]
        length = sum(len(turn.context_ids) + len(turn.response_ids) for turn in after.turns)
        assert length <= 60
        if len(after.turns) < len(before.turns):
            assert after.end is EndReason.CONTEXT_FULL
