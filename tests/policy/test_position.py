"""A privileged block can stand in front of the template, in the user's turn or in the system message."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.test_chat import DEFAULT_SYSTEM, QWEN3, QWEN25, TEXTS
from sdar.errors import UserError
from sdar.policy.chat import ChatFormat, Position
from sdar.rollout.collector import EpisodeRequest
from toys.models import CHATML
from toys.models import toy_tokenizer as new_toy_tokenizer
from toys.training import HintTeacher, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

START, END = "<|im_start|>", "<|im_end|>\n"
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
USERS_OWN = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)
BOS = "<|pad|>" + CHATML
"""A template that begins with a token of its own."""

toy_tokenizer = cache(new_toy_tokenizer)


@cache
def chat_of(template: str, position: str) -> ChatFormat:
    return ChatFormat.from_tokenizer(toy_tokenizer(template)).at(position)


def spliced(chat: ChatFormat, user: str, block: str) -> list[int]:
    ids, index = chat.opening(user)
    return ids[:index] + chat.privileged(block) + ids[index:]


def text(template: str, position: str) -> str:
    chat = chat_of(template, position)
    return chat.tokenizer.decode(spliced(chat, "USER", "BLOCK\n\n")).split("USER")[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, f"{START}system\nBLOCK{END}{START}user\n"),
        (QWEN3, f"{START}system\nBLOCK{END}{START}user\n"),
        (QWEN25, f"{START}system\n{QWEN_SYSTEM}\n\nBLOCK{END}{START}user\n"),
        (DEFAULT_SYSTEM, f"{START}system\nYou are helpful.{END}{START}system\nBLOCK{END}{START}user\n"),
        (BOS, f"<|pad|>{START}system\nBLOCK{END}{START}user\n"),
    ],
)
def test_the_system_message_is_the_templates_own_or_a_new_one(template: str, expected: str) -> None:
    assert text(template, "system") == expected


@pytest.mark.parametrize("template", [CHATML, QWEN25, QWEN3, DEFAULT_SYSTEM])
def test_before_the_template_and_in_the_users_turn(template: str) -> None:
    plain, _ = chat_of(template, "user_turn").opening("USER")
    opening = chat_of(template, "user_turn").tokenizer.decode(plain).split("USER")[0]
    assert text(template, "before_template") == f"BLOCK\n\n{opening}"
    assert text(template, "user_turn") == f"{opening}BLOCK\n\n"


@pytest.mark.parametrize("position", list(Position))
@pytest.mark.parametrize("template", [CHATML, QWEN25, QWEN3, DEFAULT_SYSTEM, BOS])
@given(user=TEXTS, block=TEXTS)
def test_a_block_leaves_all_other_ids_as_they_are_wherever_it_stands(
    template: str, position: str, user: str, block: str
) -> None:
    chat, plain = chat_of(template, position), chat_of(template, "user_turn")
    ids, index = chat.opening(user)
    assert ids == plain.opening(user)[0]
    assert chat.privileged("") == []
    if chat.privileged(block):
        inside = chat.tokenizer.encode(block.strip() if position == "system" else block, split_special_tokens=True)
        assert str(inside)[1:-1] in str(chat.privileged(block))
    assert 0 <= index <= len(ids)


@given(st.text("ab \n", max_size=4))
def test_a_system_message_of_white_space_is_none(block: str) -> None:
    assert bool(chat_of(CHATML, "system").privileged(block)) == bool(block.strip())


def test_a_template_without_system_messages_and_a_wrong_position_are_refused() -> None:
    with pytest.raises(UserError, match=r"has no place for one; set teacher\.position=user_turn or before_template$"):
        chat_of(USERS_OWN + CHATML, "system")
    with pytest.raises(
        UserError, match=r"^teacher\.position must be 'before_template' or 'user_turn' or 'system', got 'behind'$"
    ):
        chat_of(CHATML, "behind")


@pytest.mark.parametrize("context", ["append", "window"])
def test_the_position_changes_what_the_teacher_reads_and_no_rollout(context: str) -> None:
    found = {}
    for position in Position:
        policy = toy_policy()
        policy.chat = policy.chat.at(position)
        data = toy_datamodule(policy, context=context)
        module = toy_module(policy, HintTeacher(), context=context, distillation_coefficient=0.5)
        curve = train(module, data, 1).steps[0]
        found[position] = (module.report.prepared, curve, weights(module))
        rows = module.report.prepared.teacher.rows
        spliced = [length for length in rows.lengths() if length]
        batch = module.report.prepared.batch
        assert [int(n) for n in rows.response_mask.sum(1)] == [int(n) for n in batch.response_mask.sum(1)]
        added = len(policy.chat.privileged("Hint: say bbb.\n\n"))
        assert spliced == [length + added for length in batch.lengths() if length]
    first, *others = found.values()
    for prepared, curve, learned in others:
        assert prepared.batch.ids.equal(first[0].batch.ids)
        assert curve["rollout/return_mean"] == first[1]["rollout/return_mean"]
        assert curve["curriculum/gap_mean"] != first[1]["curriculum/gap_mean"]
        assert not same_weights(learned, first[2])


@pytest.mark.parametrize("position", list(Position))
def test_an_empty_block_has_a_gap_of_exactly_zero_at_every_position(position: Position) -> None:
    policy = toy_policy()
    policy.chat = policy.chat.at(position)
    curve = train(toy_module(policy, HintTeacher("")), toy_datamodule(policy), 1).steps[0]
    assert curve["curriculum/gap_mean"] == curve["curriculum/gap_std"] == 0.0


@pytest.mark.parametrize("position", list(Position))
def test_a_policy_that_reads_the_block_itself_reads_what_its_teacher_would(position: Position) -> None:
    policy = toy_policy()
    policy.chat = policy.chat.at(position)
    data = toy_datamodule(policy)
    requests = [EpisodeRequest(task, 0) for task in data.train_tasks[:2]]
    helped = data.collector.collect(requests, seed=1, key=("x",), privileged=lambda task, member: "Hint!")
    for episode in helped.episodes:
        ids = episode.turns[0].context_ids
        chat = policy.chat
        assert ids == spliced(chat, episode.opening, "Hint!")
