"""A chat template parsed once, so a conversation grows by token ids and is never rendered again.

Rendering the conversation again each turn would decode and re-encode sampled tokens (invariant 1: token in, token out).
Instead, the texts that the template puts between messages are derived once, by rendering sentinel texts, and checked.
There are three kinds of templates:

- Each longer conversation begins with the shorter one, character for character (Qwen2.5): turns are appended, and the
  ids are those of the rendered conversation.
- Only earlier assistant turns differ from what was sampled (Qwen3 drops their thoughts, and the empty thought that
  ``enable_thinking=False`` puts into the generation prompt): turns are appended in the prefix-preserving form, which
  keeps what the model saw and said. The difference from the template is logged once.
- All other templates rewrite the conversation: turns cannot be appended. A fresh prompt per turn needs only the
  opening, so it works.

A privileged block is spliced into the first message's ids at one index, chosen by :class:`Position`.
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
from sdar.policy import template_trial

log = logging.getLogger(__name__)

_USER = ("SENTINELUSERONE", "SENTINELUSERTWO", "SENTINELUSERTHREE")
_THOUGHT = ("<think>SENTINELTHOUGHTONE</think>", "<think>SENTINELTHOUGHTTWO</think>")
_ACTION = ("<action>SENTINELACTIONONE</action>", "<action>SENTINELACTIONTWO</action>")
# Some templates print today's date; a run must not depend on it.
_DATE = "01 Jan 2026"
_INSTEAD = "use a model with a plain ChatML template, for example Qwen/Qwen2.5-1.5B-Instruct"


class Position(StrEnum):
    """Where a privileged block stands in a prompt."""

    BEFORE_TEMPLATE = "before_template"
    """Before the chat template's first token, as in the paper's released code."""
    USER_TURN = "user_turn"
    """At the beginning of the first user message, as in the paper's prompts (appendix E)."""
    SYSTEM = "system"
    """In the system message: at the end of the template's default one, or in a new one."""


@dataclass(frozen=True)
class Place:
    """Where a block is spliced into the ids of a first message, and the ids that come with it.

    ``index``   position in the ids; an empty block leaves them unchanged
    ``before``  ids before the text
    ``after``   ids after it
    ``strip``   whether whitespace around the text is removed: the text is a whole message, or the end of one
    """

    index: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    strip: bool = False


@dataclass(frozen=True)
class ChatFormat:
    """Token ids around the messages of a conversation.

    A growing conversation is ``opening(user)``, then a sampled response with its end token, then ``between(user)``,
    the next response, and so on. Message texts are tokenized as plain text: a text that looks like a special token
    stays text.

    end_id          the assistant's end token: sampled like any other token; it ends the response.
    append_refusal  why turns cannot be appended; None: they can.
    append_note     how appended turns differ from the template's rendering; None: they do not.
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

        ``enable_thinking`` is passed to the template. The prompts ask for the thought in the response itself, so the
        template's own thinking mode is off by default.

        Raises UserError when there is no template, when it cannot render a first message or does not end within
        bounds, or when its assistant messages do not end with a special token.
        """
        template = _Template(tokenizer, enable_thinking)
        if not tokenizer.chat_template:
            raise UserError(f"model.name: {template.name!r} has no chat template; {_INSTEAD}")
        template.check_bounds()
        opening = template.opening()
        growth = template.growth()
        between = _encode(tokenizer, growth.before_user)
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        if not between or between[0] not in special | set(tokenizer.all_special_ids):
            raise UserError(
                f"model.name: the chat template of {template.name!r} must end an assistant message with a special "
                f"token, got {growth.before_user[:20]!r}; {_INSTEAD}"
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

        UserError: the position is unknown, or the template has no place for a system message.
        """
        allowed = [name.value for name in Position]
        if position not in allowed:
            raise UserError(f"teacher.position must be {' or '.join(map(repr, allowed))}, got {position!r}")
        if position == Position.SYSTEM:
            return replace(self, place=self._system())
        return replace(self, place=Place(0) if position == Position.BEFORE_TEMPLATE else None)

    def check_append(self) -> None:
        """UserError where turns cannot be appended; one warning in the log where they differ from the template."""
        if self.append_refusal is not None:
            raise UserError(self.append_refusal)
        if self.append_note is not None:
            _remark(self.append_note)

    def opening(self, user_text: str) -> tuple[list[int], int]:
        """Ids of the first user message up to where the assistant speaks, and the splice index.

        Privileged ids inserted at the splice index leave all other ids unchanged, because the texts on both sides are
        tokenized separately.
        """
        ids = [*self.before_first_user, *self._plain(user_text), *self.after_first_user]
        return ids, len(self.before_first_user) if self.place is None else self.place.index

    def between(self, user_text: str) -> list[int]:
        """Ids between the assistant's end token and its next response, the user message included.

        ValueError where turns cannot be appended.
        """
        if self.append_refusal is not None:
            raise ValueError(self.append_refusal)
        return [*self.before_user, *self._plain(user_text), *self.after_user]

    def privileged(self, text: str) -> list[int]:
        """Ids of a privileged block, its text tokenized alone; the empty text gives no ids."""
        if self.place is None:
            return self._plain(text)
        text = text.strip() if self.place.strip else text
        return [*self.place.before, *self._plain(text), *self.place.after] if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response without its end token. Other sampled special tokens are kept."""
        said = list(ids[:-1] if ids and ids[-1] == self.end_id else ids)
        text = self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _system(self) -> Place:
        """The end of the template's default system message, or a new message where it has none."""
        template = _Template(self.tokenizer, self.enable_thinking)
        found = template.system()
        plain = template.opening()[0]
        if found is None:
            raise UserError(
                f"teacher.position=system needs a system message, but the chat template of {template.name!r} has no "
                "place for one; set teacher.position=user_turn or before_template"
            )
        head, before, after = (_encode(self.tokenizer, piece) for piece in found)
        tail = _encode(self.tokenizer, plain[len(found[0]) :])
        if [*head, *tail] != list(self.before_first_user):
            raise UserError(
                f"teacher.position=system needs a token border at the system message, but the chat template of "
                f"{template.name!r} has none; set teacher.position=user_turn or before_template"
            )
        return Place(len(head), tuple(before), tuple(after), strip=True)

    def _plain(self, text: str) -> list[int]:
        return _encode(self.tokenizer, text, split_special_tokens=True) if text else []


@dataclass(frozen=True)
class _Growth:
    """Texts before (the assistant's end token first) and after each later user message, and remarks on them."""

    before_user: str
    after_user: str
    refusal: str | None = None
    note: str | None = None


class _Template:
    """A chat template, analyzed by rendering sentinels."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, enable_thinking: bool) -> None:
        self.tokenizer = tokenizer
        self.enable_thinking = enable_thinking
        self.name = tokenizer.name_or_path or type(tokenizer).__name__

    def check_bounds(self) -> None:
        """UserError if one of the conversations that are rendered here exceeds the limits of a trial."""
        try:
            text = self.tokenizer.get_chat_template()
        except Exception:  # rendering says what is wrong
            return
        conversations = [
            *(_conversation(turns, thoughts) for thoughts in (_THOUGHT, ("", "")) for turns in (1, 2, 3)),
            [{"role": "system", "content": _ACTION[0]}, *_conversation(1)],
            _answered(),
        ]
        shared = {**self.tokenizer.special_tokens_map, **self._options(), "tools": None, "documents": None}
        renderings = [
            {**shared, "messages": messages, "add_generation_prompt": messages[-1]["role"] == "user"}
            for messages in conversations
        ]
        if excess := template_trial.runaway(text, renderings):
            raise UserError(
                f"model.name: the chat template of {self.name!r} must render short conversations within "
                f"{template_trial.SECONDS:g} s, {template_trial.MEMORY >> 30} GB and {template_trial.CHARACTERS:,} "
                f"characters, got one that {excess}; {_INSTEAD}"
            )

    def opening(self) -> tuple[str, str]:
        """Texts before and after the first user message. UserError unless the message is shown exactly once."""
        pieces = _split(self._render(_conversation(1)), [_USER[0]])
        if pieces is None:
            raise UserError(f"model.name: the chat template of {self.name!r} does not show the user's text; {_INSTEAD}")
        return pieces[0], pieces[1]

    def system(self) -> tuple[str, str, str] | None:
        """Texts of the opening up to the place of a system text, and right before and after it; None: no place.

        In a template with a default system message (Qwen2.5) the text follows that message after a blank line.
        """
        plain = self.opening()[0]
        pieces = self._pieces([{"role": "system", "content": _ACTION[0]}, *_conversation(1)], [_ACTION[0], _USER[0]])
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
        """How a conversation continues after a response."""
        try:
            thinking = self._anatomy(_THOUGHT)
            plain = self._anatomy(("", ""))
        except UserError:
            # The first message alone can be rendered: opening() would have raised.
            return self._refused("fails on a second turn")
        if thinking is None or plain is None or (thinking.before, thinking.after) != (plain.before, plain.after):
            return self._refused("rewrites earlier turns")
        prompts = (self.opening()[1], thinking.after)
        if thinking.spoken == tuple(prompt + thought for prompt, thought in zip(prompts, _THOUGHT, strict=True)):
            return _Growth(thinking.before, thinking.after)
        # Earlier responses may be shown differently, but their message must begin like the prompt for the next one.
        heads = zip(plain.spoken, prompts, thinking.spoken, strict=True)
        if all(prompt.startswith(head) and spoken.startswith(head) for head, prompt, spoken in heads):
            note = (
                f"the chat template of {self.name!r} does not show earlier responses as they were sampled (for "
                "example, it drops their thoughts); rollout=append keeps them as sampled, so from the second turn on "
                "the context differs from what the template would render"
            )
            return _Growth(thinking.before, thinking.after, note=note)
        return self._refused("begins earlier responses differently from the next one")

    def _anatomy(self, thoughts: tuple[str, str]) -> _Anatomy | None:
        """The texts around sentinels in conversations of one, two and three user turns; None: they are inconsistent."""
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
            f"rollout.context=append needs a conversation that can be continued token by token, but the chat template "
            f"of {self.name!r} {reason}; set rollout=window (a fresh prompt each turn), or {_INSTEAD}"
        )
        pieces = self._pieces(_answered(), [_ACTION[0]], prompt=False)
        # The tokenizer's end token where the template does not show what ends an assistant message.
        closing = (pieces[1] if pieces else "") or str(self.tokenizer.eos_token or "")
        return _Growth(closing, "", refusal=sentence)

    def _pieces(self, messages: list[dict[str, str]], marks: Sequence[str], *, prompt: bool = True) -> list[str] | None:
        """See :func:`_split`; None also where the template refuses the messages."""
        try:
            return _split(self._render(messages, prompt=prompt), marks)
        except UserError:
            return None

    def _render(self, messages: Sequence[dict[str, str]], *, prompt: bool = True) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt, **self._options()
            )
        except Exception as error:  # templates are programs: they may raise anything
            raise UserError(f"model.name: the chat template of {self.name!r} fails ({error}); {_INSTEAD}") from error
        assert isinstance(text, str)
        return text

    def _options(self) -> dict[str, Any]:
        return {"enable_thinking": self.enable_thinking, "date_string": _DATE}


@dataclass(frozen=True)
class _Anatomy:
    """``spoken``: from the end of each user's text to the action of its answer; ``before``, ``after``: see _Growth."""

    spoken: tuple[str, str]
    before: str
    after: str


def _conversation(user_turns: int, thoughts: tuple[str, str] = ("", "")) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": _USER[0]}]
    for thought, action, user in zip(thoughts, _ACTION, _USER[1:user_turns], strict=False):
        messages += [{"role": "assistant", "content": thought + action}, {"role": "user", "content": user}]
    return messages


def _answered() -> list[dict[str, str]]:
    return [*_conversation(1), {"role": "assistant", "content": _ACTION[0]}]


def _split(text: str, marks: Sequence[str]) -> list[str] | None:
    """The pieces between the marks; None unless each occurs in the text exactly once, in this order."""
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
