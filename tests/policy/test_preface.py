"""System messages and tools have the template's own ids, forge no token, and leave a place for a privileged block."""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from sdar.environments.tools import as_text, described
from sdar.episode import Preface, Tool
from sdar.errors import UserError
from sdar.policy import template_trial
from sdar.policy.chat import ChatFormat, Position
from toys.chat_templates import BY_NAME, Structure
from toys.models import CHATML
from toys.tokenizers import toy_tokenizer_of
from toys.tool_templates import LLAMA, MISTRAL, MOVING

SCHEMA = {"type": "object", "properties": {"number": {"type": "integer", "description": "what to enter"}}}
ENTER, LISTEN = Tool("enter", "Enters a number.", SCHEMA), Tool("listen")
BOTH = Preface("Be brief.", (ENTER, LISTEN))
PREFACES = {"both": BOTH, "system": Preface("Be brief."), "tools": Preface(None, (ENTER, LISTEN))}
NATIVE = {"qwen2.5": BY_NAME["qwen2.5"], "qwen3": BY_NAME["qwen3"], "llama": LLAMA}
EXACT = ("qwen2.5", "llama")
TEXTS = st.text(st.sampled_from(list('ab 1.\n\t日é[]<|>/"\\')), max_size=20)


@cache
def tokenizer_of(name: str, kind: str) -> PreTrainedTokenizerFast:
    found = NATIVE.get(name) or {"mistral": MISTRAL, "moving": MOVING}[name]
    return found.tokenizer(kind)


@cache
def chat_of(name: str, position: str = "user_turn", kind: str = "bpe") -> ChatFormat:
    return ChatFormat.from_tokenizer(tokenizer_of(name, kind)).at(position)


def rendered(chat: ChatFormat, preface: Preface, messages: list[dict[str, Any]], **options: Any) -> Any:
    """What the library makes of it: ids, or the text."""
    lead = [] if preface.system is None else [{"role": "system", "content": preface.system}]
    return chat.tokenizer.apply_chat_template(
        [*lead, *messages],
        tools=[tool.form() for tool in preface.tools] or None,
        enable_thinking=False,
        date_string="01 Jan 2026",
        return_dict=False,
        **({"add_generation_prompt": True} | options),
    )


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def ids_of(chat: ChatFormat, text: str) -> list[int]:
    return chat.encoder.continued((chat.first.after,), "", text, "")


def without_trial() -> Any:
    """Each preface is tried in a process of its own, which takes a moment."""
    return mock.patch.object(template_trial, "runaway", return_value=None)


def controls(chat: ChatFormat, ids: list[int]) -> list[int]:
    return [token for token in ids if token in chat.encoder.control_ids]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("preface", PREFACES)
@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=15, deadline=None)
@given(user=TEXTS, results=st.lists(TEXTS, min_size=1, max_size=3), system=TEXTS)
def test_appended_ids_are_those_of_the_rendered_conversation(
    name: str, preface: str, kind: str, user: str, results: list[str], system: str
) -> None:
    plain = chat_of(name, kind=kind)
    read = PREFACES[preface]
    read = Preface(read.system and (system or read.system), read.tools)
    if any(map(plain.encoder.matches, [user, system, *results])):
        return
    chat = plain.prefaced(read)
    assert chat.append_note is None
    call = '{"name": "enter", "parameters": {"number": 3}}'
    said = [message("assistant", f"Go. {call}"), message("assistant", "Done.")]
    told = [message("tool", result) for result in results] if read.tools else [message("user", results[0])]
    whole = rendered(chat, read, [message("user", user), said[0], *told, said[1], message("user", "More.")])
    ids, _ = chat.opening(user)
    between = chat.answer(results) if read.tools else chat.between(results[0])
    ids = [*ids, *ids_of(chat, said[0]["content"]), chat.end_id, *between, *ids_of(chat, "Done."), chat.end_id]
    assert [*ids, *chat.between("More.")] == whole


def test_the_tools_are_those_that_the_template_writes() -> None:
    for name in NATIVE:
        chat = chat_of(name)
        for preface in PREFACES.values():
            ids = chat.prefaced(preface).opening("Go.")[0]
            assert ids == rendered(chat, preface, [message("user", "Go.")])
    assert '"name": "enter"' in chat.tokenizer.decode(chat.prefaced(BOTH).opening("Go.")[0])


def test_qwen_has_results_where_its_template_has_them() -> None:
    chat = chat_of("qwen3").prefaced(BOTH)
    assert chat.tokenizer.decode(chat.answer(["8", "9"])) == (
        "\n<|im_start|>user\n<tool_response>\n8\n</tool_response>\n<tool_response>\n9\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert chat.append_note is not None, "Qwen3 drops earlier thoughts, with tools as without"


def test_llama_has_results_as_json_in_a_message_of_their_own() -> None:
    chat = chat_of("llama").prefaced(BOTH)
    assert chat.tokenizer.decode(chat.answer(['a "b"\n'])) == (
        '<|start_header_id|>ipython<|end_header_id|>\n\n"a \\"b\\"\\n"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_no_text_of_a_preface_or_a_result_forges_a_token(name: str, data: st.DataObject) -> None:
    chat = chat_of(name)
    words = st.sampled_from([*chat.encoder.contents, "x", "\n", '"', "{", "<", "|>"])
    texts = [data.draw(st.lists(words, min_size=1, max_size=4).map("".join)) for _ in range(5)]
    system, description, key, inner, result = texts
    schema = {"type": "object", "properties": {key: {"type": "string", "enum": [inner]}}}
    forging = Preface(system, (Tool("enter", description, schema),))
    harmless = Preface("x", (Tool("enter", "x", {"type": "object", "properties": {"x": {"enum": ["x"]}}}),))
    with without_trial():
        read, plain = chat.prefaced(forging), chat.prefaced(harmless)
    assert read.results is not None
    opening = read.opening("Go.")[0]
    if forging.system:
        assert controls(chat, opening) == controls(chat, plain.opening("Go.")[0])
    assert chat.tokenizer.decode(opening) == rendered(chat, forging, [message("user", "Go.")], tokenize=False)
    assert controls(chat, read.answer([result])) == controls(chat, plain.answer(["x"]))


@pytest.mark.parametrize("position", list(Position))
@pytest.mark.parametrize("preface", PREFACES)
@pytest.mark.parametrize("name", NATIVE)
def test_a_block_has_its_place_at_every_position(name: str, preface: str, position: Position) -> None:
    chat, read = chat_of(name, position).prefaced(PREFACES[preface]), PREFACES[preface]
    ids, index = chat.opening("USER")
    assert ids == rendered(chat, read, [message("user", "USER")])
    assert chat.privileged("") == []
    before, block, after = map(chat.tokenizer.decode, (ids[:index], chat.privileged("BLOCK"), ids[index:]))
    assert block.strip() == "BLOCK"
    if position is Position.BEFORE_TEMPLATE:
        assert before == ""
    elif position is Position.USER_TURN:
        assert after.startswith("USER")
    else:
        assert (read.system or "") in before
        assert after.startswith(chat.tokenizer.decode([chat.end_id])), "at the end of the system message"
        assert "USER" in after


def test_a_preface_without_anything_is_none() -> None:
    chat = chat_of("qwen3")
    assert chat.prefaced(Preface()) is chat.prefaced(Preface("  \n")) is chat
    assert chat.prefaced(BOTH) is chat.prefaced(Preface("Be brief.\n", (ENTER, LISTEN)))


def toy(template: str, name: str) -> ChatFormat:
    tokenizer = toy_tokenizer_of("bpe", template, BY_NAME["qwen3"].tokens, eos_token="<|im_end|>")
    tokenizer.name_or_path = name
    return ChatFormat.from_tokenizer(tokenizer)


def test_a_template_without_tools_has_them_described_in_its_system_message(caplog: pytest.LogCaptureFixture) -> None:
    chat = toy(CHATML, "no tools")
    with caplog.at_level(logging.WARNING):
        read = chat.prefaced(BOTH)
        chat.prefaced(Preface(None, (ENTER,)))
    assert [record.message for record in caplog.records] == [
        "the chat template of 'no tools' has no tools in a form that is known here: they are described in text, calls "
        "are <tool_call> and results <tool_response>"
    ]
    assert (read.results, read.calls) == (None, None)
    text = f"<|im_start|>system\n{as_text(BOTH)}<|im_end|>\n<|im_start|>user\nGo."
    assert read.tokenizer.decode(read.opening("Go.")[0]).startswith(text)


def test_a_template_without_system_messages_has_them_in_front_of_the_users(caplog: pytest.LogCaptureFixture) -> None:
    refusing = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    chat = toy(refusing + CHATML, "no system")
    with caplog.at_level(logging.WARNING):
        read = chat.prefaced(Preface("Be brief."))
    assert [record.message for record in caplog.records] == [
        "the chat template of 'no system' has no place for a system message: it stands in front of the first user "
        "message"
    ]
    assert read.opening("Go.") == chat.opening("Be brief.\n\nGo.")
    assert read.between("Go.") == chat.between("Go.")
    assert chat.prefaced(BOTH).opening("Go.") == chat.opening(f"{as_text(BOTH)}\n\nGo.")
    before = chat.at("before_template").prefaced(BOTH)
    assert before.opening("Go.") == (chat.opening(f"{as_text(BOTH)}\n\nGo.")[0], 0)


@pytest.mark.parametrize(
    "part",
    [
        "{% if tools %}{{ raise_exception('no tools') }}{% endif %}",
        "{% if tools %}You have tools.{% endif %}",
        "{% if tools %}{{ tools | tojson }}{% endif %}",
    ],
    ids=["fails", "does not show them", "shows no calls"],
)
def test_tools_that_a_template_cannot_write_are_described(part: str) -> None:
    chat = toy(part + CHATML, "broken")
    assert chat.prefaced(BOTH).opening("Go.") == toy(CHATML, "broken").prefaced(BOTH).opening("Go.")


def test_a_template_that_runs_away_with_tools_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not become text: whether it does would depend on the machine."""
    nest = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    chat = toy("{% if tools %}" + nest + "{% endif %}" + CHATML, "endless")
    monkeypatch.setattr(template_trial, "SECONDS", 0.1)
    with pytest.raises(UserError, match=r"^model\.name: the chat template of 'endless' must render .* within"):
        chat.prefaced(BOTH)


def test_tools_that_move_are_described_where_they_stay() -> None:
    """With its own tools no turn could be appended; without them it can."""
    chat = chat_of("moving")
    read = chat.prefaced(Preface(None, (ENTER,)))
    assert read.append_refusal is None
    assert read.opening("Go.") == chat.opening(f"{described([ENTER])}\n\nGo.")


def test_a_list_of_calls_behind_a_token_is_a_form_too() -> None:
    chat = chat_of("mistral").prefaced(Preface(None, (ENTER,)))
    assert chat.calls is not None
    call = {"name": "enter", "arguments": {"number": 3}}
    said = f"[TOOL_CALLS][{json.dumps(call)}, {json.dumps(call)}]"
    written = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    assert chat.calls.canonical(said) == f"{written}\n{written}"
    assert chat.tokenizer.decode(chat.answer(["8"])) == "[TOOL_RESULTS] 8[/TOOL_RESULTS]"


def test_structures_without_tools_take_any_preface() -> None:
    """No template that plays is refused for a preface."""
    with without_trial():
        for structure in BY_NAME.values():
            if structure.refusal is None:
                takes(structure)


def takes(structure: Structure) -> None:
    tokenizer = structure.tokenizer()
    chat = ChatFormat.from_tokenizer(tokenizer)
    read = chat.prefaced(BOTH)
    assert (read.append_refusal is None) == (chat.append_refusal is None)
    text = "".join([*read.opened, read.lead])
    assert "Be brief." in text
    assert "enter" in text
    assert set(controls(chat, chat.opening("Go.")[0])) <= set(controls(chat, read.opening("Go.")[0]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Tool("two words"), "the name of a tool must be 1 to 64 letters, digits and _.-, got 'two words'"),
        (lambda: Tool("a", 3), "the description of tool a must be Unicode text, got 3"),  # type: ignore[arg-type]
        (lambda: Tool("a", "\ud800"), "the description of tool a must be Unicode text"),
        (lambda: Tool("a", "", {"type": "array"}), "the parameters of tool a must be the JSON schema of an object"),
        (lambda: Tool("a", "", {"properties": {"x": object()}}), "must be the JSON schema of an object"),
        (lambda: Tool("a", "", {"properties": {"x": float("nan")}}), "must be the JSON schema of an object"),
        (lambda: Tool("a", "", None), "must be the JSON schema of an object"),  # type: ignore[arg-type]
        (lambda: Preface(3), "a system message must be Unicode text or None, got 3"),  # type: ignore[arg-type]
        (lambda: Preface("\ud800"), "a system message must be Unicode text or None"),
        (lambda: Preface(None, [LISTEN]), "the tools of a preface must be a tuple of Tool"),  # type: ignore[arg-type]
        (lambda: Preface(None, ({"name": "a"},)), "must be a tuple of Tool"),  # type: ignore[arg-type]
        (lambda: Preface(None, (LISTEN, Tool("listen"))), "tools must have different names, got listen, listen"),
    ],
)
def test_a_preface_says_what_is_wrong_with_it(wrong: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace(".-", r"\.-").replace("[", r"\[")):
        wrong()


def test_tools_are_equal_where_their_texts_are() -> None:
    one, other = Tool("a", "b", {"properties": {"x": {}, "y": {}}}), Tool("a", "b", {"properties": {"y": {}, "x": {}}})
    assert one != other, "a template writes them in another order"
    assert one == Tool("a", "b", json.loads(json.dumps(one.parameters)))
    assert len({one, Tool("a", "b", one.parameters), other}) == 2
