"""A chat template taken apart once, so that a conversation grows by token ids and is never rendered again.

Rendering a conversation anew each turn would decode and re-encode sampled tokens (invariant 1: token in, token out).
Instead the texts that the template puts between messages are derived once, by rendering sentinel texts, and checked.
Three kinds of templates are told apart:

- Each longer conversation begins with the shorter one, character for character (Qwen2.5): turns are appended, and the
  ids are those of the rendered conversation.
- Only earlier assistant turns are shown otherwise than they were sampled (Qwen3 drops their thoughts, and the empty
  thought that ``enable_thinking=False`` puts into the generation prompt): turns are appended in the prefix-preserving
  form, in which what the model saw and said stays as it was. That differs from the template and is logged once.
- Anything else is rewritten: turns cannot be appended; a fresh prompt per turn needs the opening alone and works.

A privileged block is spliced into the first message's ids at one index, which :class:`Position` chooses.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from sdar.errors import UserError

log = logging.getLogger(__name__)

_USER = ("SENTINELUSERONE", "SENTINELUSERTWO", "SENTINELUSERTHREE")
_THOUGHT = ("<think>SENTINELTHOUGHTONE</think>", "<think>SENTINELTHOUGHTTWO</think>")
_ACTION = ("<action>SENTINELACTIONONE</action>", "<action>SENTINELACTIONTWO</action>")
# Templates that print today's date would make a run depend on the day.
_DATE = "01 Jan 2026"
_INSTEAD = "use a model with a plain ChatML template, for example Qwen/Qwen2.5-1.5B-Instruct"


class Position(StrEnum):
    """Where a privileged block stands in a prompt."""

    BEFORE_TEMPLATE = "before_template"
    """In front of the chat template's first token, as in the paper's released code."""
    USER_TURN = "user_turn"
    """At the beginning of the first user message, as in the paper's prompts (appendix E)."""
    SYSTEM = "system"
    """In the system message: at the end of the one that the template shows anyway, or in one of its own."""


@dataclass(frozen=True)
class Place:
    """Where a block is spliced into the ids of a first message, and the ids that come with it.

    ``index``   position in the ids; a block of no text leaves them as they are
    ``before``  ids in front of the text
    ``after``   ids behind it
    ``strip``   whether white space around the text goes: the text is a message of its own, or the end of one
    """

    index: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    strip: bool = False


@dataclass(frozen=True)
class ChatFormat:
    """Token ids around the messages of a conversation.

    A growing conversation is ``opening(user)``, then a sampled response with its end token, then ``between(user)``,
    the next response, and so on. Message texts are tokenised as plain text: a text that looks like a special token
    stays text.

    end_id          the assistant's end token: sampled like any other token, and it stops the response.
    append_refusal  the sentence why turns cannot be appended; None: they can.
    append_note     how appended turns differ from the template's own rendering; None: not at all.
    place           where a privileged block is spliced in; None: where the user's text begins.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    end_id: int
    before_first_user: tuple[int, ...]
    before_user: tuple[int, ...]
    after_first_user: tuple[int, ...]
    after_user: tuple[int, ...]
    append_refusal: str | None = None
    append_note: str | None = None
    place: Place | None = None
    enable_thinking: bool = False

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, *, enable_thinking: bool = False) -> ChatFormat:
        """Derive the format of a tokenizer's chat template.

        ``enable_thinking`` is handed to the template. Our prompts ask for the thought in the response itself, so a
        template's own thinking mode is off unless it is asked for.

        Raises UserError when there is no template, it cannot render a first message, or its assistant messages end
        without a special token.
        """
        template = _Template(tokenizer, enable_thinking)
        if not tokenizer.chat_template:
            raise UserError(f"model.name: {template.name!r} has no chat template; {_INSTEAD}.")
        opening = template.opening()
        growth = template.growth()
        between = _encode(tokenizer, growth.before_user)
        if not between or between[0] not in _special_ids(tokenizer):
            raise UserError(
                f"model.name: the chat template of {template.name!r} closes an assistant message with "
                f"{growth.before_user[:20]!r}, which is not a special token; {_INSTEAD}."
            )
        return cls(
            tokenizer=tokenizer,
            end_id=between[0],
            before_first_user=tuple(_encode(tokenizer, opening[0])),
            before_user=tuple(between[1:]),
            after_first_user=tuple(_encode(tokenizer, opening[1])),
            after_user=tuple(_encode(tokenizer, growth.after_user)),
            append_refusal=growth.refusal,
            append_note=growth.note,
            enable_thinking=enable_thinking,
        )

    def at(self, position: str) -> ChatFormat:
        """The same format with privileged blocks spliced in at ``position``; see :class:`Position`.

        UserError: there is no such position, or the template has no place for a system message.
        """
        allowed = [name.value for name in Position]
        if position not in allowed:
            raise UserError(f"teacher.position is {position!r}, allowed is one of {', '.join(allowed)}.")
        places = {
            Position.USER_TURN: lambda: None,
            Position.BEFORE_TEMPLATE: lambda: Place(0),
            Position.SYSTEM: self._system,
        }
        return replace(self, place=places[Position(position)]())

    def check_append(self) -> None:
        """UserError where turns cannot be appended; a remark in the log, once, where they differ from the template."""
        if self.append_refusal is not None:
            raise UserError(self.append_refusal)
        if self.append_note is not None:
            _remark(self.append_note)

    def opening(self, user_text: str) -> tuple[list[int], int]:
        """Ids of the first user message up to where the assistant speaks, and the splice index.

        Privileged ids inserted at the splice index leave all other ids as they are, because the texts on both sides
        were tokenised apart.
        """
        ids = [*self.before_first_user, *self._plain(user_text), *self.after_first_user]
        return ids, len(self.before_first_user) if self.place is None else self.place.index

    def between(self, user_text: str) -> list[int]:
        """Ids from after the assistant's end token, over the next user message, to where the assistant speaks again.

        ValueError where turns cannot be appended.
        """
        if self.append_refusal is not None:
            raise ValueError(self.append_refusal)
        return [*self.before_user, *self._plain(user_text), *self.after_user]

    def privileged(self, text: str) -> list[int]:
        """Ids of a privileged block, its text tokenised alone; the empty text gives no ids."""
        if self.place is None:
            return self._plain(text)
        text = text.strip() if self.place.strip else text
        return [*self.place.before, *self._plain(text), *self.place.after] if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response without its end token. Other special tokens that were sampled are shown."""
        end = len(ids) - 1 if ids and ids[-1] == self.end_id else len(ids)
        text = self.tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _system(self) -> Place:
        """The end of the template's own system message, or a message of its own where the template shows none."""
        template = _Template(self.tokenizer, self.enable_thinking)
        found = template.system()
        plain = template.opening()[0]
        if found is None:
            raise UserError(
                f"teacher.position is 'system', but the chat template of {template.name!r} has no place for a system "
                f"message; allowed are user_turn and before_template."
            )
        head, before, after = (_encode(self.tokenizer, piece) for piece in found)
        tail = _encode(self.tokenizer, plain[len(found[0]) :])
        if [*head, *tail] != list(self.before_first_user):
            raise UserError(
                f"teacher.position is 'system', but the chat template of {template.name!r} leaves no token border "
                f"at its system message; allowed are user_turn and before_template."
            )
        return Place(len(head), tuple(before), tuple(after), strip=True)

    def _plain(self, text: str) -> list[int]:
        return _encode(self.tokenizer, text, split_special_tokens=True) if text else []


@dataclass(frozen=True)
class _Growth:
    """Texts before (the assistant's end token first) and after each later user message, and what to say of them."""

    before_user: str
    after_user: str
    refusal: str | None = None
    note: str | None = None


class _Template:
    """A chat template that is asked questions by rendering sentinels."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, enable_thinking: bool) -> None:
        self.tokenizer = tokenizer
        self.enable_thinking = enable_thinking
        self.name = tokenizer.name_or_path or type(tokenizer).__name__

    def opening(self) -> tuple[str, str]:
        """Texts before and after the first user message. UserError where the message is not shown just once."""
        pieces = _split(self._render(_conversation(1)), [_USER[0]])
        if pieces is None:
            raise UserError(f"model.name: the chat template of {self.name!r} does not show a user's text; {_INSTEAD}.")
        return pieces[0], pieces[1]

    def system(self) -> tuple[str, str, str] | None:
        """Texts of the opening up to where a system text belongs, and right before and after it; None: nowhere.

        A template with a system message of its own (Qwen2.5) lets the text follow that one, after a blank line.
        """
        plain = self.opening()[0]
        try:
            pieces = _split(
                self._render([{"role": "system", "content": _ACTION[0]}, *_conversation(1)]), [_ACTION[0], _USER[0]]
            )
        except UserError:  # templates that know no system message refuse it
            return None
        if pieces is None:
            return None
        head, tail = pieces[:2]
        if len(plain) >= len(head) + len(tail) and plain.startswith(head) and plain.endswith(tail):
            own = plain[: len(plain) - len(tail)]
            return own, "\n\n" if own != head else "", ""
        for cut in range(len(plain)):
            if head.startswith(plain[:cut]) and tail.endswith(plain[cut:]):
                return plain[:cut], head[cut:], tail[: len(tail) - len(plain) + cut]
        return None

    def growth(self) -> _Growth:
        """How a conversation goes on after a response."""
        try:
            thinking = self._anatomy(_THOUGHT)
            plain = self._anatomy(("", ""))
        except UserError:
            # The first message alone can be rendered, or opening() would have raised.
            return self._refused("fails on a second turn")
        if thinking is None or plain is None or (thinking.before, thinking.after) != (plain.before, plain.after):
            return self._refused("rewrites earlier turns")
        prompts = (self.opening()[1], thinking.after)
        if thinking.spoken == tuple(prompt + thought for prompt, thought in zip(prompts, _THOUGHT, strict=True)):
            return _Growth(thinking.before, thinking.after)
        # Earlier responses may be shown otherwise, but their message must begin as the prompt for the next one does.
        heads = zip(plain.spoken, prompts, thinking.spoken, strict=True)
        if all(prompt.startswith(head) and spoken.startswith(head) for head, prompt, spoken in heads):
            note = (
                f"the chat template of {self.name!r} shows earlier responses otherwise than they were sampled (for "
                "example without their thoughts); rollout=append keeps them as they were sampled, so from the second "
                "turn on the context is not the one that the template itself would render"
            )
            return _Growth(thinking.before, thinking.after, note=note)
        return self._refused("begins earlier responses otherwise than it asks for the next one")

    def _anatomy(self, thoughts: tuple[str, str]) -> _Anatomy | None:
        """The texts around sentinels in conversations of one, two and three user turns; None: they contradict."""
        one, two, three = (self._render(_conversation(turns, thoughts)) for turns in (1, 2, 3))
        first = _split(one, _USER[:1])
        second = _split(two, [_USER[0], _ACTION[0], _USER[1]])
        third = _split(three, [_USER[0], _ACTION[0], _USER[1], _ACTION[1], _USER[2]])
        if first is None or second is None or third is None:
            return None
        begin, spoken, before, after = second
        if not (first[0] == begin == third[0] and [spoken, before] == third[1:3] and [before, after] == third[4:]):
            return None
        return _Anatomy((spoken, third[3]), before, after)

    def _refused(self, reason: str) -> _Growth:
        sentence = (
            f"rollout.context=append: the chat template of {self.name!r} {reason}, so that a conversation cannot be "
            f"continued token by token; take rollout=window (a fresh prompt each turn), or {_INSTEAD}."
        )
        return _Growth(self._closing(), "", refusal=sentence)

    def _closing(self) -> str:
        """What closes an assistant message; the tokenizer's end token where the template does not tell."""
        messages = [*_conversation(1), {"role": "assistant", "content": _ACTION[0]}]
        try:
            pieces = _split(self._render(messages, prompt=False), [_ACTION[0]])
        except UserError:
            pieces = None
        return (pieces[1] if pieces else "") or str(self.tokenizer.eos_token or "")

    def _render(self, messages: Sequence[dict[str, str]], *, prompt: bool = True) -> str:
        options: dict[str, Any] = {"enable_thinking": self.enable_thinking, "date_string": _DATE}
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt, **options
            )
        except Exception as error:  # templates are programs of strangers: they may raise anything
            raise UserError(f"model.name: the chat template of {self.name!r} fails ({error}); {_INSTEAD}.") from error
        assert isinstance(text, str)
        return text


@dataclass(frozen=True)
class _Anatomy:
    """``spoken``: from the end of each user's text to its answer's action; ``before``, ``after``: see _Growth."""

    spoken: tuple[str, str]
    before: str
    after: str


def _conversation(user_turns: int, thoughts: tuple[str, str] = ("", "")) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": _USER[0]}]
    for thought, action, user in zip(thoughts, _ACTION, _USER[1:user_turns], strict=False):
        messages += [{"role": "assistant", "content": thought + action}, {"role": "user", "content": user}]
    return messages


def _split(text: str, marks: Sequence[str]) -> list[str] | None:
    """The pieces between the marks; None unless each stands in the text just once, in this order."""
    pieces: list[str] = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        piece, _, text = text.partition(mark)
        pieces.append(piece)
    return [*pieces, text]


@cache
def _remark(text: str) -> None:
    log.warning("%s", text)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, split_special_tokens: bool = False) -> list[int]:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=split_special_tokens)
    return [int(token) for token in ids]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
