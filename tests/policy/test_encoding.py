"""Ids of messages are the tokenizer's own for the rendered conversation, and no text forges a token of the template."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from sdar.errors import UserError
from sdar.policy.chat import ChatFormat
from sdar.policy.chat_check import checked_chat
from sdar.policy.encoding import TextMemory
from toys.chat_templates import BY_NAME, STRUCTURES, Structure
from toys.tokenizers import KINDS, toy_tokenizer_of

ACCEPTED = [structure for structure in STRUCTURES if structure.refusal is None]
TEXTS = st.text(st.sampled_from(list("ab 1.\n\t日é[]<|>/▁")), max_size=30)
WORDS = st.sampled_from(
    ["<", ">", "|", "think", "/", " ", "\n", "im_end", "INST", "[", "]", "user", "x", "é", "▁", "</s>", "<unk>"]
)


@cache
def tokenizer_of(name: str, kind: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = BY_NAME[name].tokenizer(kind)
    tokenizer.name_or_path = name
    return tokenizer


@cache
def chat_of(name: str, kind: str | None = None) -> ChatFormat:
    tokenizer = tokenizer_of(name, kind)
    return ChatFormat.from_tokenizer(tokenizer, stop_ids=BY_NAME[name].stop_ids(tokenizer))


def own_ids(name: str, messages: list[tuple[str, str]], kind: str | None = None) -> list[int]:
    """What the library itself makes of a conversation, on the first of January 2026."""
    tokenizer = tokenizer_of(name, kind)
    told = tokenizer.chat_template
    for form, day in (("%d %B %Y", "01 January 2026"), ("%Y-%m-%d", "2026-01-01"), ("%d %b %Y", "01 Jan 2026")):
        told = told.replace(f"strftime_now('{form}')", repr(day))
    found = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in messages],
        chat_template=told,
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,
    )
    assert isinstance(found, list)
    return found


def controls(chat: ChatFormat, ids: list[int]) -> list[int]:
    return [token for token in ids if token in chat.encoder.control_ids]


@pytest.mark.parametrize("structure", ACCEPTED, ids=lambda structure: structure.name)
@settings(max_examples=25, deadline=None)
@given(first=TEXTS, second=TEXTS)
def test_ids_are_those_of_the_rendered_conversation(structure: Structure, first: str, second: str) -> None:
    chat, name = chat_of(structure.name), structure.name
    if chat.encoder.matches(first + second):
        return
    opening = chat.opening(first)[0]
    assert opening == own_ids(name, [("user", first)])
    if structure.append == "refused":
        return
    between = [chat.end_id, *chat.between(second)]
    whole = own_ids(name, [("user", first), ("assistant", "<action>go</action>"), ("user", second)])
    assert whole[-len(between) :] == between
    if structure.append == "exact":
        assert whole[: len(opening)] == opening
        assert chat.decode(whole[len(opening) : -len(between)]).strip() == "<action>go</action>"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qwen3", "llama2", "phi3", "deepseek_r1_distill", "gemma", "glm4.5"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_text_gives_a_control_token(name: str, kind: str, data: st.DataObject) -> None:
    """Whatever the flag of the token, and also where text and template make one together."""
    chat = chat_of(name, kind)
    tokens = [token.content for token in chat.tokenizer.added_tokens_decoder.values()]
    piece = st.one_of(WORDS, st.sampled_from(tokens), st.sampled_from([token[1:] for token in tokens]))
    text = "".join(data.draw(st.lists(piece, max_size=8)))
    for ids, plain in ((chat.opening(text)[0], chat.opening("x")[0]), (chat.between(text), chat.between("x"))):
        assert controls(chat, ids) == controls(chat, plain)
    assert controls(chat, chat.privileged(text)) == []


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@given(text=st.lists(WORDS, max_size=8).map("".join))
def test_a_text_that_looks_like_a_token_is_still_the_same_text(kind: str, text: str) -> None:
    chat = chat_of("deepseek_r1_distill", kind)
    rendered = chat.first.before + text + chat.first.after
    assert chat.tokenizer.decode(chat.opening(text)[0]) == rendered


@pytest.mark.parametrize("token", ["<think>", "</think>", "<tool_call>", "<｜User｜>", "<｜Assistant｜>", "<|im_end|>"])
@pytest.mark.parametrize("special", [True, False])
def test_the_flag_of_a_token_makes_no_difference(token: str, special: bool) -> None:
    template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    tokenizer = toy_tokenizer_of(
        "bpe", template, [AddedToken(token, special=special)], bos_token="<s>", eos_token="</s>"
    )
    chat = ChatFormat.from_tokenizer(tokenizer)
    ids, _ = chat.opening(f"You see {token} here.")
    assert tokenizer.convert_tokens_to_ids(token) not in ids
    assert tokenizer.decode(ids) == f"<s>You see {token} here.</s>"


def test_runs_of_spaces_that_are_tokens_stay_tokens() -> None:
    """GPT-NeoX's tokenizer has them; they control nothing."""
    template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    spaces = [AddedToken(" " * count, special=False, normalized=True) for count in (4, 3, 2)]
    tokenizer = toy_tokenizer_of("bpe", template, spaces, bos_token="<s>", eos_token="</s>")
    chat = checked_chat(ChatFormat.from_tokenizer(tokenizer))
    run = tokenizer.convert_tokens_to_ids("    ")
    assert run in chat.opening("a    b")[0]
    assert run in chat.opening("a    b </s>")[0]


def test_unknown_characters_stay_unknown() -> None:
    chat = chat_of("unigram")
    assert chat.opening("日本")[0] == own_ids("unigram", [("user", "日本")])
    assert chat.tokenizer.unk_token_id in chat.opening("日本")[0]


@pytest.mark.parametrize("name", ["llama2", "mistral_v1", "zephyr"])
def test_sentencepiece_puts_no_second_space_before_a_message(name: str) -> None:
    """The text alone would begin with a space of its own; ids of the whole do not."""
    chat = chat_of(name)
    alone = chat.tokenizer.encode("desk", add_special_tokens=False)
    ids, splice = chat.opening("desk")
    assert ids == own_ids(name, [("user", "desk")])
    pieces = [*chat.tokenizer.encode(chat.first.before), *alone, *chat.tokenizer.encode(chat.first.after)]
    assert ids != pieces
    block = chat.privileged("Hint.\n\n")
    assert "Hint.\n\n" in chat.tokenizer.decode([*ids[:splice], *block, *ids[splice:]])


def test_whitespace_around_a_text_is_trimmed_where_the_template_trims_it() -> None:
    trimmed, kept = chat_of("llama3"), chat_of("chatml")
    assert trimmed.opening("\n go \n")[0] == trimmed.opening("go")[0] == own_ids("llama3", [("user", "\n go \n")])
    assert kept.opening("\n go \n")[0] == own_ids("chatml", [("user", "\n go \n")]) != kept.opening("go")[0]


def test_a_template_that_changes_whitespace_otherwise_is_refused() -> None:
    template = "{% for m in messages %}<s>{{ m.content | replace(' ', '_') }}</s>{% endfor %}"
    with pytest.raises(UserError, match=r"^model\.name: the chat template of .* changes the whitespace of the user's"):
        ChatFormat.from_tokenizer(toy_tokenizer_of("bpe", template, bos_token="<s>", eos_token="</s>"))


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)
def test_every_structure_is_taken_as_it_should_be(structure: Structure) -> None:
    tokenizer = tokenizer_of(structure.name)
    if structure.refusal is not None:
        with pytest.raises(UserError, match=structure.refusal):
            ChatFormat.from_tokenizer(tokenizer)
        return
    chat = checked_chat(chat_of(structure.name))
    found = "refused" if chat.append_refusal else "kept" if chat.append_note else "exact"
    assert found == structure.append
    assert chat.end_id == tokenizer.convert_tokens_to_ids(structure.stops[0])


def test_a_tokenizer_that_makes_control_tokens_of_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_of("chatml")
    end = chat.end_id
    monkeypatch.setattr(type(chat.encoder), "_encode_pieces", lambda *_: [end])
    with pytest.raises(UserError, match=r"makes control tokens of a message's text"):
        checked_chat(chat)


def test_a_tokenizer_that_encodes_a_message_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_of("chatml")
    monkeypatch.setattr(type(chat.encoder), "encode", lambda self, before, text="", after="": [chat.end_id, 1])
    with pytest.raises(UserError, match=r"encodes a message differently from its chat template"):
        checked_chat(chat)


def test_what_is_remembered_is_bounded_by_texts_and_by_findings() -> None:
    memory: TextMemory[int] = TextMemory(characters=5000)
    asked: list[str] = []

    def find(text: str) -> int:
        asked.append(text)
        return len(text)

    for text in ("a", "b" * 900, "a", "c" * 2000, "a", "b" * 900):
        assert memory.get((text,), lambda text=text: find(text)) == len(text)
    assert [text[0] for text in asked] == ["a", "b", "c", "a", "b"]  # c does not fit beside both
    for number in range(100):
        memory.get((str(number),), lambda: 0)
    asked.clear()
    memory.get(("0",), lambda: find("0"))
    assert asked == ["0"]  # a hundred findings are too many, however short their texts
