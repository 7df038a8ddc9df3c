"""A chat template taken apart once, so that a conversation grows by token ids and is never rendered again.

Rendering a conversation anew each turn would decode and re-encode sampled tokens (invariant 1: token in, token out).
Instead the texts that the template puts between messages are derived once, by rendering sentinel texts, and checked:
each longer conversation must begin with the shorter one, character for character. Templates that rewrite earlier
turns (for example by dropping earlier thoughts) fail this check and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from sdar.errors import UserError

_USER = ("SENTINELUSERONE", "SENTINELUSERTWO", "SENTINELUSERTHREE")
_ASSISTANT = tuple(f"<think>SENTINELTHOUGHT{n}</think><action>SENTINELACTION{n}</action>" for n in ("ONE", "TWO"))
_TEMPLATE_OPTIONS: dict[str, Any] = {
    # Our prompts ask for the thought in the response itself, so a template's own thinking mode stays off.
    "enable_thinking": False,
    # Templates that print today's date would make a run depend on the day.
    "date_string": "01 Jan 2026",
}
_INSTEAD = "use a model with a plain ChatML template, for example Qwen/Qwen2.5-1.5B-Instruct"


@dataclass(frozen=True)
class ChatFormat:
    """Token ids around the messages of a growing conversation.

    A conversation is ``opening(user)``, then a sampled response with its end token, then ``between(user)``, the next
    response, and so on. Message texts are tokenised as plain text: a text that looks like a special token stays text.

    end_id  the assistant's end token: sampled like any other token, and it stops the response.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    end_id: int
    before_first_user: tuple[int, ...]
    before_user: tuple[int, ...]
    after_first_user: tuple[int, ...]
    after_user: tuple[int, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
        """Derive the format of a tokenizer's chat template.

        Raises UserError when there is no template, or when turns cannot be appended to what it renders.
        """
        name = tokenizer.name_or_path or type(tokenizer).__name__
        if not tokenizer.chat_template:
            raise UserError(f"model.name: {name!r} has no chat template; {_INSTEAD}.")
        before_first_user, after_first_user, before_user, after_user = _fragments(tokenizer, name)
        between = _encode(tokenizer, before_user)
        end_id = between[0] if between else None
        if end_id is None or end_id not in _special_ids(tokenizer):
            raise UserError(
                f"model.name: the chat template of {name!r} closes an assistant message with {before_user[:20]!r}, "
                f"which is not a special token; {_INSTEAD}."
            )
        return cls(
            tokenizer=tokenizer,
            end_id=end_id,
            before_first_user=tuple(_encode(tokenizer, before_first_user)),
            before_user=tuple(between[1:]),
            after_first_user=tuple(_encode(tokenizer, after_first_user)),
            after_user=tuple(_encode(tokenizer, after_user)),
        )

    def opening(self, user_text: str) -> tuple[list[int], int]:
        """Ids of the first user message up to where the assistant speaks, and the splice index.

        The splice index is where the user's text begins; privileged ids inserted there leave all other ids as they
        are, because the text before it and the text after it were tokenised apart.
        """
        ids = [*self.before_first_user, *self._plain(user_text), *self.after_first_user]
        return ids, len(self.before_first_user)

    def between(self, user_text: str) -> list[int]:
        """Ids from after the assistant's end token, over the next user message, to where the assistant speaks again."""
        return [*self.before_user, *self._plain(user_text), *self.after_user]

    def privileged(self, text: str) -> list[int]:
        """Ids of a privileged block, tokenised alone; the empty text gives no ids."""
        return self._plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response without its end token. Other special tokens that were sampled are shown."""
        end = len(ids) - 1 if ids and ids[-1] == self.end_id else len(ids)
        text = self.tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _plain(self, text: str) -> list[int]:
        return _encode(self.tokenizer, text, split_special_tokens=True) if text else []


def _fragments(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[str, str, str, str]:
    """Texts before and after the first user message, and before (end token included) and after each later one."""
    first = _render(tokenizer, name, 1)
    second = _render(tokenizer, name, 2)
    third = _render(tokenizer, name, 3)
    if first.count(_USER[0]) == 1:
        before_first, after_first = first.split(_USER[0])
        spoken = first + _ASSISTANT[0]
        rest = second.removeprefix(spoken)
        if second.startswith(spoken) and rest.count(_USER[1]) == 1:
            before, after = rest.split(_USER[1])
            if third == second + _ASSISTANT[1] + before + _USER[2] + after:
                return before_first, after_first, before, after
    raise UserError(
        f"model.name: the chat template of {name!r} rewrites earlier turns (for example by dropping earlier thoughts), "
        f"so that a conversation cannot be continued token by token; {_INSTEAD}."
    )


def _render(tokenizer: PreTrainedTokenizerBase, name: str, num_user_turns: int) -> str:
    messages = [{"role": "user", "content": _USER[0]}]
    for assistant, user in zip(_ASSISTANT, _USER[1:num_user_turns], strict=False):
        messages += [{"role": "assistant", "content": assistant}, {"role": "user", "content": user}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **_TEMPLATE_OPTIONS)
    except Exception as error:  # templates are programs of strangers: they may raise anything
        raise UserError(f"model.name: the chat template of {name!r} fails ({error}); {_INSTEAD}.") from error
    assert isinstance(text, str)
    return text


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, split_special_tokens: bool = False) -> list[int]:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=split_special_tokens)
    return [int(token) for token in ids]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
