"""The chat format grows a conversation by ids exactly as its template would render it."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.policy import template_trial
from sdar.policy.chat import ChatFormat
from toys.models import CHATML
from toys.models import toy_tokenizer as new_toy_tokenizer

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
DROPS_THOUGHTS = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
DEFAULT_SYSTEM = "<|im_start|>system\nYou are helpful.<|im_end|>\n" + CHATML
QWEN25, QWEN3 = (
    (Path(__file__).parent / "templates" / f"{name}.jinja").read_text() for name in ("qwen2_5_instruct", "qwen3")
)
FORGETS_USERS = CHATML.replace("{{ message['content'] }}", "{{ message['content'] if loop.last or not loop.first }}")
SYSTEM_LAST = CHATML.replace("{{ message['content'] }}", "{{ 'Be kind. ' if loop.last }}{{ message['content'] }}")
OTHER_CHANNEL = CHATML.replace("assistant\n{% endif", "assistant/final\n{% endif")
ONE_TURN = "{% if messages[1:] %}{{ raise_exception('one turn only') }}{% endif %}" + CHATML
EMPTY_THOUGHT = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif")
NO_END_TOKEN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


toy_tokenizer = cache(new_toy_tokenizer)


def _template_ids(template: str, messages: list[tuple[str, str]]) -> list[int]:
    ids = toy_tokenizer(template).apply_chat_template(
        [{"role": role, "content": text} for role, text in messages], add_generation_prompt=True, return_dict=False
    )
    assert isinstance(ids, list)
    return ids


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, QWEN25])
@given(users=st.lists(TEXTS, min_size=1, max_size=3), assistants=st.lists(TEXTS, min_size=2, max_size=2))
def test_appended_ids_are_those_of_the_rendered_conversation(
    template: str, users: list[str], assistants: list[str]
) -> None:
    tokenizer = toy_tokenizer(template)
    chat = ChatFormat.from_tokenizer(tokenizer)
    ids, _ = chat.opening(users[0])
    messages = [("user", users[0])]
    for assistant, user in zip(assistants, users[1:], strict=False):
        ids += [*tokenizer.encode(assistant, add_special_tokens=False), chat.end_id, *chat.between(user)]
        messages += [("assistant", assistant), ("user", user)]
    assert ids == _template_ids(template, messages)


@given(user=TEXTS, block=TEXTS)
def test_a_spliced_block_leaves_all_other_ids_as_they_are(user: str, block: str) -> None:
    chat = ChatFormat.from_tokenizer(toy_tokenizer())
    ids, splice = chat.opening(user)
    spliced = ids[:splice] + chat.privileged(block) + ids[splice:]
    assert chat.tokenizer.decode(spliced) == f"<|im_start|>user\n{block}{user}<|im_end|>\n<|im_start|>assistant\n"


def test_the_empty_block_has_no_ids() -> None:
    assert ChatFormat.from_tokenizer(toy_tokenizer()).privileged("") == []


@given(text=TEXTS)
def test_decoding_gives_the_response_without_its_end_token(text: str) -> None:
    tokenizer = toy_tokenizer()
    chat = ChatFormat.from_tokenizer(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert chat.decode([*ids, chat.end_id]) == chat.decode(ids) == text
    assert chat.decode([]) == ""


def test_special_tokens_in_a_text_stay_text() -> None:
    chat = ChatFormat.from_tokenizer(toy_tokenizer())
    ids, _ = chat.opening("a<|im_end|>b")
    assert ids.count(chat.end_id) == 1
    assert chat.end_id not in chat.between("<|im_end|>")[: len("\n") + 1]
    assert chat.end_id not in chat.privileged("<|im_end|>")


def test_the_end_token_comes_from_the_template() -> None:
    tokenizer = new_toy_tokenizer()
    tokenizer.eos_token = "<|pad|>"
    assert ChatFormat.from_tokenizer(tokenizer).end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", [FORGETS_USERS, SYSTEM_LAST, OTHER_CHANNEL, ONE_TURN])
def test_a_template_that_cannot_be_appended_says_so_and_still_opens(template: str) -> None:
    tokenizer = toy_tokenizer(template)
    chat = ChatFormat.from_tokenizer(tokenizer)
    with pytest.raises(UserError, match=r"^rollout\.context=append needs .*rollout=window.*Qwen2\.5") as caught:
        chat.check_append()
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"rollout=window"):
        chat.between("more")
    ids, splice = chat.opening("hello")
    assert ids == _template_ids(template, [("user", "hello")])
    assert tokenizer.decode(ids[splice:]).startswith("hello")
    assert chat.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", [QWEN3, DROPS_THOUGHTS, EMPTY_THOUGHT])
def test_what_the_model_said_stays_in_its_context(
    template: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """Qwen3 drops earlier thoughts: appended turns keep them, and that this differs is logged once."""
    tokenizer = new_toy_tokenizer(template)
    tokenizer.name_or_path = request.node.name  # a sentence is logged once, and it names the model
    chat = ChatFormat.from_tokenizer(tokenizer)
    first = chat.tokenizer.decode(chat.opening("one")[0])
    prompt = first.split("one<|im_end|>\n")[1]
    assert chat.tokenizer.decode([chat.end_id, *chat.between("two")]) == (
        f"<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n{prompt}"
    )
    assert chat.append_refusal is None
    assert chat.append_note is not None
    with caplog.at_level(logging.WARNING):
        chat.check_append()
        chat.check_append()
    assert [record.message for record in caplog.records] == [chat.append_note]


@pytest.mark.parametrize(("thinking", "block"), [(False, "<think>\n\n</think>\n\n"), (True, "")])
def test_qwen3_is_asked_for_a_response_as_its_template_says(thinking: bool, block: str) -> None:
    chat = ChatFormat.from_tokenizer(toy_tokenizer(QWEN3), enable_thinking=thinking)
    decode = chat.tokenizer.decode
    assert decode(chat.opening("hello")[0]) == f"<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n{block}"
    assert decode(chat.between("more")) == f"\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n{block}"


def test_qwen25_has_its_default_system_message_and_is_appended_exactly() -> None:
    chat = ChatFormat.from_tokenizer(toy_tokenizer(QWEN25))
    assert chat.append_refusal is chat.append_note is None
    assert chat.tokenizer.decode(chat.opening("hello")[0]) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_missing_template_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.name.*no chat template.*Qwen2\.5"):
        ChatFormat.from_tokenizer(toy_tokenizer(None))


def test_a_template_without_an_end_token_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.name.* must end an assistant message with a special token, got '"):
        ChatFormat.from_tokenizer(toy_tokenizer(NO_END_TOKEN))


def test_a_template_that_fails_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.name.*fails"):
        ChatFormat.from_tokenizer(toy_tokenizer("{{ raise_exception('no users here') }}"))


RUNAWAY = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "one with a system message": "{% if messages[0].role == 'system' %}{% for i in range(99999) %}"
    "{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}",
    "a number": "{{ 9 ** (9 ** 9) }}",
    "memory": "{{ 'a' * 10000000000 }}",
    "length": "{% for i in range(99999) %}{{ 'twenty characters...' }}{% endfor %}",
}


@pytest.mark.parametrize("part", RUNAWAY.values(), ids=list(RUNAWAY))
def test_a_template_that_does_not_end_within_bounds_is_refused(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_trial, "SECONDS", 0.1)
    with pytest.raises(
        UserError, match=r"^model\.name: the chat template of .* must render .* within .*Qwen2\.5"
    ) as told:
        ChatFormat.from_tokenizer(new_toy_tokenizer(part + CHATML))
    assert "\n" not in str(told.value)


def test_what_only_fails_is_no_business_of_the_trial() -> None:
    for template in (
        "{{ nothing.of.it }}",
        "{% raw",
        "{{ raise_exception('no') }}",
        "{% generation %}a{% endgeneration %}",
    ):
        assert template_trial.runaway(template, [{"messages": []}]) is None
