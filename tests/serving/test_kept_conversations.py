"""Keys and values that are kept between requests change no answer, and spare what was computed before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from test_chat_model import DEFAULTS, request, whole

from sdar.errors import UserError
from sdar.policy import generation
from sdar.policy.language_model import LanguageModel
from sdar.policy.shape import ModelShape
from sdar.serving.chat import Answer, ChatModel
from sdar.serving.errors import ApiError
from toys.training import toy_policy


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return toy_policy(layers=2)


@contextmanager
def counted(policy: LanguageModel) -> Iterator[list[int]]:
    """Sizes of the blocks that the model computes."""
    sizes: list[int] = []
    hook = policy.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: sizes.append(ids[0].numel()))
    try:
        yield sizes
    finally:
        hook.remove()


def talk(model: ChatModel, name: str, turns: int, **fields: object) -> list[Answer]:
    texts, answers = [f"{name} says hello"], []
    for turn in range(turns):
        answers.append(whole(model, request(*texts, **fields)))
        texts += [answers[-1].text, f"and now, {turn}?"]
    return answers


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "sampled"])
def test_a_conversation_that_goes_on_computes_what_is_new(policy: LanguageModel, fields: dict[str, object]) -> None:
    kept, anew = ChatModel(policy, DEFAULTS), ChatModel(policy, DEFAULTS, kept_bytes=0)
    with counted(policy) as sizes:
        answers = talk(kept, "a", 4, **fields)
    total = answers[-1].prompt_tokens + len(answers[-1].ids)
    assert sum(sizes) == total - 1  # of all turns; the last token is not fed
    with counted(policy) as sizes:
        assert [answer.ids for answer in talk(anew, "a", 4, **fields)] == [answer.ids for answer in answers]
    assert sum(sizes) == sum(answer.prompt_tokens + len(answer.ids) - 1 for answer in answers)


def test_an_answer_that_is_asked_for_again_computes_one_token_of_the_prompt(policy: LanguageModel) -> None:
    kept, anew = ChatModel(policy, DEFAULTS), ChatModel(policy, DEFAULTS, kept_bytes=0)
    talk(kept, "a", 3, seed=1)
    for seed in range(4):
        with counted(policy) as sizes:
            answer = whole(kept, request("a says hello", seed=seed))
        assert answer.ids == whole(anew, request("a says hello", seed=seed)).ids
        assert sum(sizes) == len(answer.ids)


def test_conversations_take_turns_without_touching_each_other(policy: LanguageModel) -> None:
    kept = ChatModel(policy, DEFAULTS)
    expected = {name: talk(ChatModel(policy, DEFAULTS, kept_bytes=0), name, 3, temperature=0) for name in "abc"}
    texts = {name: [f"{name} says hello"] for name in "abc"}
    with counted(policy) as sizes:
        for turn in range(3):
            for name in "abc":
                answer = whole(kept, request(*texts[name], temperature=0))
                assert answer.ids == expected[name][turn].ids
                texts[name] += [answer.text, f"and now, {turn}?"]
    last = [answers[-1] for answers in expected.values()]
    assert sum(sizes) == sum(answer.prompt_tokens + len(answer.ids) - 1 for answer in last)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(policy: LanguageModel) -> None:
    shape = ModelShape.of(policy.model.config)
    assert shape is not None
    kept = ChatModel(policy, DEFAULTS, kept_bytes=400 * shape.cache_bytes(4))  # two with room for 159 tokens each
    talks = {name: talk(kept, name, 1, temperature=0)[0] for name in "abc"}
    for name, spared in (("b", True), ("c", True), ("a", False)):
        with counted(policy) as sizes:
            again = whole(kept, request(f"{name} says hello", temperature=0))
        assert again.ids == talks[name].ids
        assert (sum(sizes) == len(again.ids)) is spared


def test_where_memory_is_short_other_conversations_give_way(
    policy: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ChatModel(policy, DEFAULTS)
    answers = [talk(kept, name, 1, temperature=0)[0] for name in "ab"]
    short = iter([True, False, False, True, True])

    def check(*_: object, **__: object) -> None:
        if next(short, False):
            raise UserError("no memory is free")

    monkeypatch.setattr(generation, "check_room", check)
    assert whole(kept, request("c says hello", temperature=0)).finish_reason
    with counted(policy) as sizes:
        assert whole(kept, request("a says hello", temperature=0)).ids == answers[0].ids
    assert sum(sizes) > len(answers[0].ids)
    with pytest.raises(ApiError, match="there is not enough memory for this conversation"):
        whole(kept, request("d says hello", temperature=0))
