"""Calls in a model's own form reach environments in one form, and what is none is none there, too."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.test_preface import BOTH, chat_of
from sdar.environments.tools import Call, calls_in, without_calls
from sdar.policy.call_form import CallForm

HERMES = CallForm("<tool_call>", "</tool_call>", "name", "arguments")
LLAMA = CallForm("", "", "name", "parameters")
LISTED = CallForm("[TOOL_CALLS]", "", "name", "arguments")
TAGGED = CallForm("<call>", "</call>", "function", "args")
ENTER = Call("enter", {"number": 3})

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
CALLS = st.builds(
    Call, st.sampled_from(["enter", "look"]), st.dictionaries(st.text(max_size=5) | st.just("</tool_call>"), VALUES)
)


def test_the_form_is_the_templates() -> None:
    assert [chat_of(name).prefaced(BOTH).calls for name in ("qwen2.5", "qwen3", "llama")] == [HERMES, HERMES, LLAMA]


@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=30))
def test_hermes_is_left_as_it_is(text: str) -> None:
    said = f'{text}<tool_call>{{"name": "enter", "arguments": {{}}}}</tool_call>{text}'
    assert HERMES.canonical(said) == said


@settings(max_examples=25, deadline=None)
@given(calls=st.lists(CALLS, min_size=1, max_size=3))
def test_every_form_says_the_same(calls: list[Call]) -> None:
    bare = "; ".join(json.dumps({"name": call.name, "parameters": call.arguments}) for call in calls)
    listed = json.dumps([{"name": call.name, "arguments": call.arguments, "id": "1"} for call in calls])
    tagged = "\n".join(
        f"<call>{json.dumps({'function': call.name, 'args': json.dumps(call.arguments)})}</call>" for call in calls
    )
    for form, said in ((LLAMA, bare), (LISTED, f"[TOOL_CALLS]{listed}"), (TAGGED, tagged)):
        found = form.canonical(f"<think>I call.</think>{said}")
        assert calls_in(found) == (calls, True)
        assert without_calls(found) == "<think>I call.</think>"


@settings(max_examples=25, deadline=None)
@given(calls=st.lists(CALLS, min_size=1, max_size=3), form=st.sampled_from([LLAMA, LISTED, TAGGED]))
def test_calls_that_are_written_in_a_form_are_read_in_it(calls: list[Call], form: CallForm) -> None:
    pieces = form.pieces(calls)
    assert len(pieces) == 2 * len(calls) + 1
    assert calls_in(form.canonical("".join(pieces))) == (calls, True)


@pytest.mark.parametrize(
    ("form", "response", "calls", "valid"),
    [
        (LLAMA, '{"name": "enter", "parameters": {"number": 3}}', [ENTER], True),
        (LLAMA, ' \n{"name": "enter", "parameters": {"number": 3}} ', [ENTER], True),
        (LLAMA, 'So. <|python_tag|>{"name": "enter", "parameters": {"number": 3}}', [ENTER], True),
        (LLAMA, '{"type": "function", "name": "enter", "parameters": {"number": 3}}', [ENTER], True),
        (LLAMA, '{"name": "enter", "arguments": {"number": 3}}', [ENTER], True),
        (LLAMA, '<tool_call>{"name": "enter", "arguments": {"number": 3}}</tool_call>', [ENTER], True),
        (LLAMA, '{"name": "enter", "parameters": {"number": 3}', [], False),
        (LLAMA, '{"name": "enter", "parameters": {"number": 3}} and more', [], False),
        (LLAMA, '{"name": "enter", "parameters": [3]}', [], False),
        (LLAMA, '{"name": 3, "parameters": {}}', [], False),
        (LLAMA, '{"name": "enter", "parameters": {"number": NaN}}', [], False),
        (LLAMA, '{"name": "enter", "parameters": {"number": 1e999}}', [], False),
        (LLAMA, '<tool_call>{"name": "enter", "arguments": {"number": -Infinity}}</tool_call>', [], False),
        (LLAMA, "<|python_tag|>print(3)", [], False),
        (LLAMA, '{"name": ' + "[" * 100_000, [], False),
        (LLAMA, '{"answer": 3}', [], True),
        (LLAMA, 'I say {"name": "enter", "parameters": {"number": 3}}', [], True),
        (LLAMA, "", [], True),
        (LISTED, 'So. [TOOL_CALLS] [{"name": "enter", "arguments": {"number": 3}}]', [ENTER], True),
        (LISTED, "[TOOL_CALLS]", [], False),
        (LISTED, '[TOOL_CALLS][{"name": "enter", "arguments": {"number": 3}}', [ENTER], True),
        (LISTED, '[TOOL_CALLS][{"name": "enter"', [], False),
        (TAGGED, '<call>{"function": "enter", "args": {"number": 3}}</call>', [ENTER], True),
        (TAGGED, 'a<call>{"function": "enter", "args": {"number": 3}}</call>b', [ENTER], True),
        (TAGGED, '<call>{"function": "enter", "args": {"number": 3}}', [], False),
        (TAGGED, '<call>{"args": {"number": 3}}</call>', [], False),
        (TAGGED, '<call>{"function": "enter", "args": "{\\"number\\": NaN}"}</call>', [], False),
        (TAGGED, "<call></call>", [], False),
        (TAGGED, "no call", [], True),
    ],
)
def test_what_is_a_call_and_what_is_none(form: CallForm, response: str, calls: list[Call], valid: bool) -> None:
    assert calls_in(form.canonical(response)) == (calls, valid)


def test_a_thought_may_speak_of_calls() -> None:
    thought = '<think><|python_tag|>{"name": "enter"} is how.</think>'
    assert LLAMA.canonical(f"{thought}Done.") == f"{thought}Done."
