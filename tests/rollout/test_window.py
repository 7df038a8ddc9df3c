"""Promises of ``rollout.context=window``: each turn a fresh prompt, of which the history gives way first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sdar.environments.base import PastTurn
from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task, Turn
from sdar.errors import UserError
from sdar.rollout.prompting import last_turns
from toys.rollouts import CountingEnvironment, FactoryOfFakes, fake_collector, requests, text_ids

LIMIT = 5


class Spoken(CountingEnvironment):
    """Its window prompt shows what it was given: one letter per past turn, so that lengths are easy to count."""

    def window_prompt(self, task: Task, past: Any, observation: Observation, step: int) -> str:
        return f"{step}" + "".join(f"[{turn.observation} {turn.action}]" for turn in past) + observation.text


def collect(environment: CountingEnvironment, asked: Any, *, key: Any = ("train", 0), **settings: Any) -> list[Episode]:
    privileged = settings.pop("privileged", None)
    collector = fake_collector(environment, limit=LIMIT, **({"context": "window"} | settings))
    return collector.collect(asked, seed=0, key=key, privileged=privileged).episodes


def the_text(turn: Turn) -> str:
    assert (turn.context_ids[0], turn.context_ids[-1]) == (90, 91)
    return "".join(chr(token - 100) for token in turn.context_ids[1:-1])


def longest(environment: CountingEnvironment) -> Any:
    """The task that takes most turns: one request."""
    return requests(environment, 1)[2:3]


@pytest.mark.parametrize("history", [0, 1, 2, 9])
def test_every_prompt_shows_the_last_turns_and_what_is_seen_now(history: int) -> None:
    environment = Spoken()
    for episode in collect(environment, requests(environment), history_turns=history):
        for k, turn in enumerate(episode.turns):
            shown = episode.turns[max(0, k - history) : k]
            past = "".join(f"[{old.observation.text} {old.action}]" for old in shown)
            assert the_text(turn) == f"{k}{past}turn {k}"
            assert (turn.splice_index, turn.dropped_turns) == (1, 0)
        assert episode.opening == "0turn 0"


def test_the_history_holds_the_projected_action_and_not_the_reasoning() -> None:
    class Terse(Spoken):
        def project(self, response: str) -> Any:
            return type(super().project(response))(f"act {len(response)}", valid=False)

    environment = Terse()
    for episode in collect(environment, requests(environment), history_turns=1):
        for before, turn in zip(episode.turns, episode.turns[1:], strict=False):
            assert f"[{before.observation.text} act {len(before.response_text)}]" in the_text(turn)


def test_the_episode_itself_is_that_of_a_growing_conversation() -> None:
    """With a policy whose responses depend on their uniforms alone, only the contexts differ."""
    environment = CountingEnvironment()
    grown = collect(environment, requests(environment), context="append")
    fresh = collect(environment, requests(environment))
    for one, other in zip(grown, fresh, strict=True):
        assert (one.task, one.member, one.end, one.success) == (other.task, other.member, other.end, other.success)
        assert [turn.response_ids for turn in one.turns] == [turn.response_ids for turn in other.turns]
        assert [turn.reward for turn in one.turns] == [turn.reward for turn in other.turns]


@hypothesis_settings(max_examples=25, deadline=None)
@given(concurrent=st.integers(1, 30), data=st.data())
def test_episodes_do_not_depend_on_waves_neighbours_or_order(concurrent: int, data: st.DataObject) -> None:
    everything = requests(CountingEnvironment())
    expected = {(e.task.task_id, e.member): e for e in collect(CountingEnvironment(), everything)}
    part = data.draw(st.lists(st.sampled_from(everything), unique=True, min_size=1))
    for episode in collect(CountingEnvironment(), part, max_concurrent_episodes=concurrent):
        assert episode == expected[episode.task.task_id, episode.member]


def test_ended_episodes_stop_generating_and_the_others_are_fed_whole_prompts() -> None:
    environment, factory = CountingEnvironment(), FactoryOfFakes()
    episodes = collect(environment, requests(environment), factory=factory)
    for k, call in enumerate(factory.made[0].calls):
        assert call == {slot: e.turns[k].context_ids for slot, e in enumerate(episodes) if len(e.turns) > k}


def test_the_oldest_turns_give_way_first_and_are_counted() -> None:
    environment = Spoken()
    free = collect(environment, longest(environment), history_turns=2)[0]
    whole = [len(turn.context_ids) for turn in free.turns]
    last = len(free.turns) - 1
    assert last >= 3
    (episode,) = collect(environment, longest(environment), history_turns=2, max_prompt_tokens=whole[last] - 1)
    assert [turn.response_ids for turn in episode.turns] == [turn.response_ids for turn in free.turns]
    assert episode.turns[last].dropped_turns == 1
    kept = episode.turns[last - 1]
    assert the_text(episode.turns[last]) == f"{last}[{kept.observation.text} {kept.action}]turn {last}"
    (bare,) = collect(environment, longest(environment), history_turns=2, max_prompt_tokens=9)
    assert [the_text(turn) for turn in bare.turns] == [f"{k}turn {k}" for k in range(len(bare.turns))]
    assert [turn.dropped_turns for turn in bare.turns] == [min(k, 2) for k in range(len(bare.turns))]


def test_an_episode_ends_as_context_full_where_no_history_helps() -> None:
    environment = Spoken()
    (episode,) = collect(environment, longest(environment), max_prompt_tokens=8)
    assert (episode.end, episode.turns, episode.success) == (EndReason.CONTEXT_FULL, [], False)


def test_the_context_has_room_for_prompt_response_and_the_teachers_block() -> None:
    environment = Spoken()
    free = collect(environment, longest(environment), history_turns=2)[0]
    needed = max(len(turn.context_ids) for turn in free.turns) + LIMIT
    for block, dropped in ((7, 0), (8, 1)):
        (episode,) = collect(
            environment, longest(environment), context_tokens=needed + 7, reserved_tokens=lambda task, n=block: n
        )
        assert max(turn.dropped_turns for turn in episode.turns) == dropped


def test_privileged_text_goes_into_every_prompt_and_drops_no_more_history_than_a_block_that_is_kept_free() -> None:
    environment = Spoken()
    free = collect(environment, longest(environment))[0]
    room = max(len(turn.context_ids) for turn in free.turns)
    limits = {"max_prompt_tokens": room - 1, "context_tokens": room + LIMIT + 3}
    plain = collect(environment, longest(environment), reserved_tokens=lambda task: 5, **limits)[0]
    helped = collect(environment, longest(environment), privileged=lambda task, member: "hint!", **limits)[0]
    assert sum(turn.dropped_turns for turn in plain.turns) > 0
    for one, other in zip(plain.turns, helped.turns, strict=True):
        assert other.context_ids == [90, *text_ids("hint!"), *one.context_ids[1:]]
        assert (other.splice_index, other.dropped_turns) == (None, one.dropped_turns)


def test_a_prompt_that_cannot_be_written_ends_its_own_episode_only() -> None:
    class Mute(CountingEnvironment):
        def window_prompt(self, task: Task, past: Any, observation: Observation, step: int) -> str:
            if task.task_id == "train-3" and step == 1:
                raise RuntimeError("lost for words")
            return super().window_prompt(task, past, observation, step)

    environment = Mute()
    for episode in collect(environment, requests(environment)):
        assert (episode.end is EndReason.ERROR_ENVIRONMENT) == (episode.task.task_id == "train-3")
        if episode.end.is_error:
            assert (episode.error, len(episode.turns)) == ("RuntimeError: lost for words", 1)


def test_the_default_prompt_says_task_steps_history_and_observation_in_that_order() -> None:
    environment = CountingEnvironment()
    task, seen = environment.tasks("train")[0], Observation("a door", None, "")
    past = [PastTurn("a room", "look"), PastTurn("a key", "take key")]
    assert environment.window_prompt(task, [], seen, 0) == environment.opening(task, seen)
    assert environment.window_prompt(task, [], seen, 5) == "task 0\n\na door"
    expected = "task 0\n\nSteps taken: 5. The last 2:\n\na room\n> look\n\na key\n> take key\n\na door"
    assert environment.window_prompt(task, past, seen, 5) == expected


def test_last_turns_are_the_last_and_none_when_none_are_wanted() -> None:
    turns = [Turn([], [], "", action, True, Observation(f"saw {action}", None, "")) for action in "abc"]
    assert last_turns(turns, 0) == []
    assert last_turns(turns, 2) == [PastTurn("saw b", "b"), PastTurn("saw c", "c")]
    assert len(last_turns(turns, 9)) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history_turns": -1}, "history_turns must be a whole number >= 0, got -1"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens must be a whole number >= 1 or null, got 0"),
        ({"context": "both"}, "context must be 'append' or 'window', got 'both'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        collect(CountingEnvironment(), [], **settings)


def test_an_error_outcome_at_the_start_is_kept() -> None:
    def broken() -> StepOutcome:
        raise RuntimeError("no such room")

    environment = CountingEnvironment(faults={"train-1": (0, broken)})
    ends = {e.task.task_id: e.end for e in collect(environment, requests(environment, 1))}
    assert [name for name, end in ends.items() if end.is_error] == ["train-1"]
