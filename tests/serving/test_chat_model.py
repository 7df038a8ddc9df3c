"""What is served is what is rolled out, token for token."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sdar.episode import Preface
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import LanguageModel
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.settings import SamplingConfig
from sdar.serving.chat import Answer, ChatModel
from sdar.serving.errors import ApiError
from sdar.serving.request import ChatRequest, read_request
from toys.chat_templates import BY_NAME as STRUCTURES
from toys.training import LettersEnvironment, toy_policy, toy_rollout

DEFAULTS = SamplingConfig(temperature=1.0, max_response_tokens=6)


@pytest.fixture(scope="module")
def policy() -> LanguageModel:
    return toy_policy()


def request(*texts: str, system: str | None = None, **fields: object) -> ChatRequest:
    """Texts of user and assistant in turn."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    messages = messages if system is None else [{"role": "system", "content": system}, *messages]
    return read_request(json.dumps({"model": "toy", "messages": messages, **fields}).encode(), DEFAULTS)


def whole(model: ChatModel, asked: ChatRequest) -> Answer:
    answer = model.answer(asked)
    assert "".join(answer) == answer.text
    return answer


def test_greedy_answers_are_the_tokens_of_a_rollout(policy: LanguageModel) -> None:
    environment = LettersEnvironment(tasks=4)
    model = ChatModel(policy, DEFAULTS)
    asked = [EpisodeRequest(task, 0) for task in environment.tasks("train")]
    played = Collector(policy, environment, toy_rollout(temperature=0.0)).collect(asked, seed=0, key=("x",)).episodes
    assert any(len(episode.turns) > 2 for episode in played)
    for episode in played:
        texts: list[str] = []
        for turn in episode.turns:
            texts.append(environment.reply(turn.observation) if texts else episode.opening)
            answer = whole(model, request(*texts, temperature=0))
            assert answer.ids == turn.response_ids
            assert (answer.text, answer.finish_reason == "length") == (turn.response_text, turn.truncated)
            texts.append(answer.text)


def test_a_conversation_goes_on_behind_the_very_tokens_that_were_sampled(policy: LanguageModel) -> None:
    """Bytes of a random model are no UTF-8, so that their text, encoded again, would be others."""
    model, stranger = ChatModel(policy, DEFAULTS), ChatModel(policy, DEFAULTS)
    different = 0
    for seed in range(8):
        first = whole(model, request("hello", seed=seed))
        again = request("hello", first.text, "and now?")
        ids = model.prompt(again).ids
        chat = policy.chat
        end = [] if first.ids[-1] == chat.end_id else [chat.end_id]
        assert ids == [*chat.opening("hello")[0], *first.ids, *end, *chat.between("and now?")]
        different += stranger.prompt(again).ids != ids
    assert different > 0


def test_what_is_remembered_is_bounded(policy: LanguageModel) -> None:
    model = ChatModel(policy, DEFAULTS, remembered=1)
    answers = [whole(model, request("hello", seed=seed)) for seed in range(8)]
    ids = [model.prompt(request("hello", answer.text, "more")).ids for answer in answers]
    stranger = ChatModel(policy, DEFAULTS)
    encoded = [stranger.prompt(request("hello", answer.text, "more")).ids for answer in answers]
    assert ids[:-1] == encoded[:-1]


def test_what_others_said_is_encoded_as_the_template_renders_it(policy: LanguageModel) -> None:
    ids = ChatModel(policy, DEFAULTS).prompt(request("hello", "I look.", "and now?")).ids
    messages = [{"role": role, "content": text} for role, text in (("user", "hello"), ("assistant", "I look."))]
    messages.append({"role": "user", "content": "and now?"})
    rendered = policy.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert ids == policy.tokenizer.encode(rendered, add_special_tokens=False)


def test_a_system_message_is_the_templates(policy: LanguageModel) -> None:
    prompt = ChatModel(policy, DEFAULTS).prompt(request("hello", system=" be brief"))
    assert prompt.ids == policy.chat.prefaced(Preface("be brief")).opening("hello")[0]
    assert prompt.ids != policy.chat.opening("hello")[0]


def test_the_seed_decides_the_tokens(policy: LanguageModel) -> None:
    model = ChatModel(policy, DEFAULTS)
    texts = [whole(model, request("hello", seed=seed)).ids for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(map(tuple, texts))) == 3
    assert len({tuple(whole(model, request("hello")).ids) for _ in range(4)}) > 1
    assert (
        whole(model, request("hello", temperature=0, seed=1)).ids == whole(model, request("hello", temperature=0)).ids
    )


def test_the_length_is_bounded_by_the_request_and_by_the_context(policy: LanguageModel) -> None:
    model = ChatModel(policy, DEFAULTS)
    prompt = len(model.prompt(request("hello")).ids)
    assert len(whole(model, request("hello", max_tokens=2, seed=0)).ids) <= 2
    room = policy.context_tokens - prompt
    model.answer(request("hello", max_tokens=room))
    with pytest.raises(ApiError, match="maximum context length") as refused:
        model.answer(request("hello", max_tokens=room + 1))
    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")
    # Without a limit of its own a request gets what there is room for.
    long = "x" * (room + len("hello") - 3)
    assert len(whole(model, request(long, temperature=1, seed=1)).ids) <= 3
    with pytest.raises(ApiError, match="maximum context length"):
        model.answer(request("x" * (room + len("hello"))))
    with pytest.raises(ApiError, match="maximum context length"):
        model.answer(request("x" * 10_000_000))  # refused before it is tokenized


def test_messages_without_a_text_are_bounded_too(policy: LanguageModel) -> None:
    """Each has the template's tokens."""
    with pytest.raises(ApiError, match="maximum context length"):
        ChatModel(policy, DEFAULTS).answer(request("hello", *[""] * 100_000))


def with_template(policy: LanguageModel, name: str) -> LanguageModel:
    """The policy with another chat template; its weights are only asked for their number of tokens."""
    tokenizer = STRUCTURES[name].tokenizer()
    return replace(policy, tokenizer=tokenizer, chat=ChatFormat.from_tokenizer(tokenizer))


def test_a_template_that_rewrites_turns_is_served_one_message_at_a_time(policy: LanguageModel) -> None:
    name = next(name for name, made in STRUCTURES.items() if made.append == "refused" and made.refusal is None)
    model = ChatModel(with_template(policy, name), DEFAULTS)
    assert model.prompt(request("hello")).ids == model.policy.chat.opening("hello")[0]
    with pytest.raises(ApiError, match="set rollout=window") as refused:
        model.answer(request("hello", "yes", "and now?"))
    assert (refused.value.status, refused.value.param) == (400, "messages")


def test_a_system_message_without_a_place_begins_the_users(policy: LanguageModel) -> None:
    model = ChatModel(with_template(policy, "gemma"), DEFAULTS)
    assert "be brief\n\nhello" in model.policy.tokenizer.decode(model.prompt(request("hello", system="be brief")).ids)


def test_a_thought_that_the_template_opens_is_part_of_the_answer_and_not_said_twice(policy: LanguageModel) -> None:
    model = ChatModel(with_template(policy, "qwen3_thinking"), DEFAULTS)
    prompt = model.prompt(request("hello"))
    assert prompt.thought == "<think>"
    assert model.policy.chat.decode(prompt.ids).endswith("<think>\n")
    again = model.prompt(request("hello", "<think>so</think>x", "and now?")).ids
    assert model.policy.tokenizer.decode(again).count("<think>") == 2  # of both prompts, none of the answer
