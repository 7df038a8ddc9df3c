from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sdar.episode import EndReason, Episode, Observation, StepOutcome
from sdar.errors import UserError
from sdar.rollout.collector import Collector, CollectProgress, EpisodeRequest
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.waves import waves
from toys.rollouts import (
    END,
    CountingEnvironment,
    FactoryOfFakes,
    FakeChat,
    FakeGenerator,
    fake_collector,
    requests,
    text_ids,
)

LIMIT = 5


def collector(environment: CountingEnvironment, **settings: Any) -> Collector:
    return fake_collector(environment, limit=LIMIT, **settings)


def sampled(episode: Episode) -> list[list[int]]:
    return [turn.response_ids for turn in episode.turns]


@hypothesis_settings(max_examples=25, deadline=None)
@given(concurrent=st.integers(1, 30), data=st.data())
def test_tokens_do_not_depend_on_waves_neighbours_or_order(concurrent: int, data: st.DataObject) -> None:
    everything = requests(CountingEnvironment())
    whole = collector(CountingEnvironment()).collect(everything, seed=1, key=("train", 0)).episodes
    expected = {(e.task.task_id, e.member): e for e in whole}

    part = data.draw(st.lists(st.sampled_from(everything), unique=True, min_size=1))
    some = collector(CountingEnvironment(), max_concurrent_episodes=concurrent)
    episodes = some.collect(part, seed=1, key=("train", 0)).episodes

    assert [(e.task, e.member) for e in episodes] == [(r.task, r.member) for r in part]
    for episode in episodes:
        assert episode == expected[episode.task.task_id, episode.member]


@pytest.mark.parametrize(("seed", "key"), [(2, ("train", 0)), (1, ("train", 1)), (1, ("val", 0))])
def test_tokens_depend_on_seed_and_key(seed: int, key: tuple[int | str, ...]) -> None:
    environment = CountingEnvironment()
    one = collector(environment).collect(requests(environment), seed=1, key=("train", 0)).episodes
    two = collector(environment).collect(requests(environment), seed=seed, key=key).episodes
    assert [sampled(e) for e in one] != [sampled(e) for e in two]


def test_members_and_turns_sample_differently() -> None:
    environment = CountingEnvironment()
    episodes = collector(environment).collect(requests(environment), seed=1, key=("train", 0)).episodes
    responses = [tuple(turn.response_ids) for e in episodes for turn in e.turns if len(turn.response_ids) == LIMIT]
    assert len(set(responses)) == len(responses)


@given(total=st.integers(1, 200), limit=st.integers(1, 70))
def test_waves_are_few_even_and_in_order(total: int, limit: int) -> None:
    cut = waves(total, limit)
    assert [index for wave in cut for index in wave] == list(range(total))
    assert len(cut) == -(-total // limit)
    assert max(map(len, cut)) <= limit
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_no_more_than_the_allowed_episodes_are_alive_at_once() -> None:
    environment, factory = CountingEnvironment(), FactoryOfFakes()
    few = collector(environment, max_concurrent_episodes=5, factory=factory)
    few.collect(requests(environment), seed=0, key=("train", 0))
    assert max(len(call) for call in factory.made[0].calls) == 5


def test_ended_episodes_stop_generating() -> None:
    environment, factory = CountingEnvironment(), FactoryOfFakes()
    episodes = collector(environment, factory=factory).collect(requests(environment), seed=0, key=("train", 0)).episodes
    for turn, call in enumerate(factory.made[0].calls):
        assert sorted(call) == [slot for slot, episode in enumerate(episodes) if len(episode.turns) > turn]
    assert len({len(episode.turns) for episode in episodes}) > 1


def test_an_episode_records_what_was_seen_done_and_rewarded() -> None:
    environment = CountingEnvironment()
    (episode,) = collector(environment).collect(requests(environment, 1)[1:2], seed=0, key=("train", 0)).episodes
    assert (episode.end, episode.success, episode.opening) == (EndReason.SUCCESS, True, "task 1: turn 0")
    assert [turn.observation.text for turn in episode.turns] == ["turn 0", "turn 1", "turn 2"]
    assert [turn.reward for turn in episode.turns] == [0.0, 0.0, 10.0]
    assert episode.scores == {"part": 0.3}
    for turn in episode.turns:
        ended = turn.response_ids[-1] == END
        text = "".join(str(token) for token in (turn.response_ids[:-1] if ended else turn.response_ids))
        assert (turn.response_text, turn.action, turn.valid) == (text, text, len(text) > 1)
        assert turn.truncated == (not ended)


def test_the_turn_limit_ends_an_episode() -> None:
    environment = CountingEnvironment(max_turns=3)
    (episode,) = collector(environment).collect(requests(environment, 1)[3:4], seed=0, key=("train", 0)).episodes
    assert (episode.end, episode.success, len(episode.turns)) == (EndReason.TURN_LIMIT, False, 3)
    assert episode.scores == {"part": 0.3}


def test_success_at_the_last_allowed_turn_is_success() -> None:
    environment = CountingEnvironment(max_turns=2)
    (episode,) = collector(environment).collect(requests(environment, 1)[0:1], seed=0, key=("train", 0)).episodes
    assert (episode.end, len(episode.turns)) == (EndReason.SUCCESS, 2)


class Scripted(FakeGenerator):
    """Every response is the same, cut or ended."""

    def __init__(self, sampling: SamplingConfig, response: list[int]) -> None:
        super().__init__(sampling)
        self.response = response

    def sample(self, uniforms: object) -> list[int]:
        return list(self.response)


def scripted(response: list[int]) -> Callable[..., Scripted]:
    return lambda policy, sampling: Scripted(sampling, response)


def test_a_cut_response_gets_its_end_token_as_context() -> None:
    environment = CountingEnvironment()
    for response, end in (([3] * LIMIT, [END]), ([3] * (LIMIT - 1) + [END], [])):
        played = collector(environment, factory=scripted(response)).collect(
            requests(environment, 1)[1:2], seed=0, key=("train", 0)
        )
        first, *later = played.episodes[0].turns
        assert first.context_ids == [90, *text_ids("task 1: turn 0"), 91]
        for number, turn in enumerate(later, start=1):
            assert turn.context_ids == [*end, 90, *text_ids(f"turn {number}"), 91]
        for turn in (first, *later):
            assert turn.response_ids == response
            assert turn.truncated == bool(end)


def test_only_the_first_turn_has_a_splice_index() -> None:
    environment = CountingEnvironment()
    for episode in collector(environment).collect(requests(environment), seed=0, key=("train", 0)).episodes:
        assert [turn.splice_index for turn in episode.turns] == [1] + [None] * (len(episode.turns) - 1)


def test_a_full_context_ends_an_episode_before_sampling() -> None:
    environment = CountingEnvironment()
    request = requests(environment, 1)[3:4]
    free = collector(environment, factory=scripted([3, END])).collect(request, seed=0, key=("train", 0)).episodes[0]
    lengths = [len(turn.context_ids) + len(turn.response_ids) for turn in free.turns]
    needed = sum(lengths[:2]) + len(free.turns[2].context_ids) + LIMIT
    for context_tokens, turns in ((needed, 3), (needed - 1, 2)):
        tight = collector(environment, context_tokens=context_tokens, factory=scripted([3, END]))
        (episode,) = tight.collect(request, seed=0, key=("train", 0)).episodes
        assert (episode.end, len(episode.turns)) == (EndReason.CONTEXT_FULL, turns)
        assert episode.turns == free.turns[:turns]


def test_room_for_the_teachers_block_is_left_free_unless_the_prompt_holds_it_already() -> None:
    environment = CountingEnvironment()
    request = requests(environment, 1)[3:4]
    free = collector(environment, factory=scripted([3, END])).collect(request, seed=0, key=("train", 0)).episodes[0]
    lengths = [len(turn.context_ids) + len(turn.response_ids) for turn in free.turns]
    needed = sum(lengths[:2]) + len(free.turns[2].context_ids) + LIMIT
    for reserved, turns in ((7, 3), (8, 2)):
        tight = collector(
            environment,
            context_tokens=needed + 7,
            reserved_tokens=lambda task, reserved=reserved: reserved,
            factory=scripted([3, END]),
        )
        (episode,) = tight.collect(request, seed=0, key=("train", 0)).episodes
        assert (episode.end, len(episode.turns)) == (EndReason.CONTEXT_FULL, turns)
        (helped,) = tight.collect(request, seed=0, key=("train", 0), privileged=lambda task, member: "").episodes
        assert len(helped.turns) == 3


def test_the_last_observation_is_kept() -> None:
    environment = CountingEnvironment()
    for episode in collector(environment).collect(requests(environment), seed=0, key=("train", 0)).episodes:
        assert episode.last_observation is not None
        assert episode.last_observation.text != episode.turns[-1].observation.text


def test_an_opening_that_does_not_fit_ends_without_a_turn(caplog: pytest.LogCaptureFixture) -> None:
    environment = CountingEnvironment()
    played = collector(environment, context_tokens=12).collect(requests(environment), seed=0, key=("train", 0))
    assert {(e.end, len(e.turns), e.success) for e in played.episodes} == {(EndReason.CONTEXT_FULL, 0, False)}
    assert "no room for a first response" in caplog.text


@pytest.mark.parametrize("context", ["append", "window"])
def test_a_first_prompt_that_cannot_fit_is_refused_with_both_numbers(context: str) -> None:
    environment = CountingEnvironment()
    tasks = environment.tasks("train")[:2]
    (own,) = {len(FakeChat().opening(environment.opening(task, Observation("turn 0", None, "")))[0]) for task in tasks}
    needed = own + LIMIT + 3
    fitting, tight = (
        collector(environment, context_tokens=tokens, context=context, reserved_tokens=lambda task: 3)
        for tokens in (needed, needed - 1)
    )
    fitting.check_room(tasks)
    with pytest.raises(UserError) as caught:
        tight.check_room(tasks)
    assert str(caught.value) == (
        f"the model 'fake' has a context of {needed - 1} tokens here, but the first prompt of task train-0 has {own} "
        f"tokens, and needs {needed} with a response of {LIMIT} and the teacher's text of 3; use a model with a longer "
        "context, or lower rollout.sampling.max_response_tokens"
    )
    assert all(pool.closed for pool in environment.pools)


def test_a_limit_of_prompts_that_no_first_prompt_keeps_is_refused() -> None:
    environment = CountingEnvironment()
    with pytest.raises(
        UserError, match=r"^rollout\.max_prompt_tokens must leave room for a first prompt, got 5: that of"
    ):
        collector(environment, context="window", max_prompt_tokens=5).check_room(environment.tasks("train")[:2])


def test_first_prompts_are_not_judged_by_tasks_that_cannot_start() -> None:
    def broken() -> StepOutcome:
        raise RuntimeError("broken")

    environment = CountingEnvironment(faults={"train-0": (0, broken)})
    collector(environment, context_tokens=12).check_room(environment.tasks("train")[:1])


def test_privileged_text_is_spliced_into_the_rollout_prompt() -> None:
    environment = CountingEnvironment()
    request = requests(environment, 1)[:2]
    texts = {"train-0": "hint!", "train-1": ""}
    played = collector(environment).collect(
        request, seed=0, key=("val", 0), privileged=lambda task, member: texts[task.task_id]
    )
    plain = collector(environment).collect(request, seed=0, key=("val", 0))
    helped, empty = played.episodes
    assert helped.turns[0].context_ids == [90, *text_ids("hint!"), *text_ids("task 0: turn 0"), 91]
    assert helped.turns[0].splice_index is None
    assert helped.turns[1:] == plain.episodes[0].turns[1:]
    assert empty == plain.episodes[1]


def test_progress_counts_every_turn() -> None:
    environment, seen = CountingEnvironment(), list[CollectProgress]()
    plays = collector(environment, max_concurrent_episodes=7)
    played = plays.collect(requests(environment), seed=0, key=("train", 0), progress=seen.append)
    last = seen[-1]
    assert (last.finished, last.total, last.live) == (24, 24, 0)
    assert last.turns == sum(len(e.turns) for e in played.episodes)
    assert last.response_tokens == sum(e.num_response_tokens for e in played.episodes)
    assert all(a.finished <= b.finished and a.turns <= b.turns for a, b in pairwise(seen))


def test_time_is_split_into_generation_and_environment() -> None:
    environment = CountingEnvironment()
    timings = collector(environment).collect(requests(environment), seed=0, key=("train", 0)).timings
    assert set(timings) == {"generate_s", "environment_s"}
    assert all(seconds > 0 for seconds in timings.values())


def test_nothing_asked_for_gives_nothing() -> None:
    environment, factory = CountingEnvironment(), FactoryOfFakes()
    assert collector(environment, factory=factory).collect([], seed=0, key=("train", 0)).episodes == []
    assert environment.pools == factory.made == []


def test_one_request_twice_is_refused() -> None:
    environment = CountingEnvironment()
    request = EpisodeRequest(environment.tasks("train")[0], 0)
    with pytest.raises(ValueError, match="requests must be pairwise different"):
        collector(environment).collect([request, request], seed=0, key=("train", 0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_concurrent_episodes": 0}, "max_concurrent_episodes must be a whole number >= 1, got 0"),
        ({"context": "sliding"}, "context must be 'append' or 'window', got 'sliding'"),
        ({"context_tokens": LIMIT}, f"max_response_tokens must be < {LIMIT}, .*, got {LIMIT}"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        collector(CountingEnvironment(), **settings)


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}],
)
def test_sampling_settings_out_of_range_are_named(arguments: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"^SamplingConfig\.{next(iter(arguments))} must be .*number "):
        SamplingConfig(**arguments)  # type: ignore[arg-type]
