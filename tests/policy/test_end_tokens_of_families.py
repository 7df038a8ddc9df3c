"""Every end token that a published model stops at ends a response; the template's own closes it in the conversation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from policy.test_encoding import chat_of
from sdar.environments.base import Projection
from sdar.policy.chat import ChatFormat
from sdar.policy.language_model import hf_model
from sdar.rollout.conversation import AppendConversation, WindowConversation
from toys.chat_templates import BY_NAME as STRUCTURES
from toys.families import BY_NAME as FAMILIES
from toys.families import VOCABULARY
from toys.matrix import save_tokenizer
from toys.training import LettersEnvironment, toy_datamodule, toy_module, train

NAMED = {
    "llama3": ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    "qwen2.5": ("<|im_end|>", "<|endoftext|>"),
    "qwen3": ("<|im_end|>", "<|endoftext|>"),
    "gemma": ("<end_of_turn>", "<eos>"),
    "phi3": ("<|end|>", "<|assistant|>", "<|endoftext|>"),
    "glm4": ("<|user|>", "<|observation|>", "<|endoftext|>"),
    "glm4.5": ("<|user|>", "<|observation|>", "<|endoftext|>"),
}
"""The template's own end, and the others of generation_config.json."""
CASES = [(name, end) for name, ends in NAMED.items() for end in ends]
RETURNS = ("<|return|>", "<|call|>")
"""gpt-oss: its template ends earlier turns otherwise than the model does, so it plays with rollout=window alone."""


def ids_of(chat: ChatFormat, *texts: str) -> list[int]:
    found = chat.tokenizer.convert_tokens_to_ids(list(texts))
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("name", NAMED)
def test_all_of_them_are_known_and_the_templates_own_is_the_first(name: str) -> None:
    chat = chat_of(name)
    ends = ids_of(chat, *NAMED[name])
    assert set(ends) <= chat.end_ids
    assert chat.end_id == ends[0]


@pytest.mark.parametrize(("name", "end"), CASES)
def test_a_response_ends_with_it_and_the_conversation_with_the_templates_own(name: str, end: str) -> None:
    chat = chat_of(name)
    (last,) = ids_of(chat, end)
    for kind in (AppendConversation, WindowConversation):
        conversation = kind(chat)
        text, cut = conversation.record(conversation.prompt("one"), [*chat.privileged("go"), last])
        assert (text, cut) == ("go", False)
        fed = [chat.end_id] if last != chat.end_id and kind is AppendConversation else []
        then = chat.between("two") if kind is AppendConversation else chat.opening("two")[0]
        assert conversation.prompt("two").ids == [*fed, *then]


@pytest.mark.parametrize("end", RETURNS)
def test_gpt_oss_stops_at_its_own_ends(end: str) -> None:
    chat = chat_of("harmony")
    (last,) = ids_of(chat, end)
    assert last in chat.end_ids
    conversation = WindowConversation(chat)
    assert conversation.record(conversation.prompt("one"), [*chat.privileged("go"), last]) == ("go", False)


class Stubborn(LettersEnvironment):
    """Never won, so that every episode has all its turns."""

    def project(self, response: str) -> Projection:
        return Projection("b", valid=True)


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize(("name", "end"), [("llama3", "<|eom_id|>"), ("glm4", "<|endoftext|>"), ("gemma", "<eos>")])
def test_it_is_learned_and_what_is_fed_behind_it_is_not(name: str, end: str, context: str, tmp_path: Path) -> None:
    """With a model that says nothing else: one token a turn, and nothing is invented behind it."""
    FAMILIES["llama"].model().save_pretrained(tmp_path)
    policy = hf_model(str(save_tokenizer(tmp_path, STRUCTURES[name])))
    (last,) = ids_of(policy.chat, end)
    policy.model.set_output_embeddings(head_that_says(last))
    module = toy_module(policy, distillation_coefficient=0.0, context=context)
    train(module, toy_datamodule(policy, context=context, environment=Stubborn(), tasks=2), 1)
    batch = module.report.prepared.batch
    assert set(batch.ids[batch.response_mask].tolist()) == {last}
    turns = list(zip(batch.episode_index.repeat_interleave(batch.response_mask.sum(1)).tolist(),
                     batch.turn_index[batch.response_mask].tolist(), strict=True))  # fmt: skip
    assert len(turns) == len(set(turns)) == 2 * 3 * Stubborn.max_turns
    for row, mask in zip(batch.ids.tolist(), batch.response_mask.tolist(), strict=True):
        places = [place for place, learned in enumerate(mask) if learned]
        assert all(row[place + 1] == policy.chat.end_id for place in places[:-1])
        assert not any(mask[place + 1] for place in places[:-1])


def head_that_says(token: int) -> torch.nn.Linear:
    head = torch.nn.Linear(32, VOCABULARY)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[token] = 50.0
    return head
