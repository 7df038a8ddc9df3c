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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache

from transformers import PreTrainedTokenizerBase

from sdar.errors import UserError
from sdar.policy.chat_template import INSTEAD, ChatTemplate, Frame
from sdar.policy.encoding import TextEncoder

log = logging.getLogger(__name__)

_OPEN, _CLOSE = "<think>", "</think>"


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
    """Where a block is spliced into the ids of a first message, and the texts that come with it.

    ``context``  the template's text before the block
    ``before``   text before the block's own
    ``after``    text after it
    ``strip``    whether whitespace around the block is removed: it is a whole message, or the end of one
    """

    context: str
    before: str = ""
    after: str = ""
    strip: bool = False


@dataclass(frozen=True)
class ChatFormat:
    """Token ids around the messages of a conversation.

    A growing conversation is ``opening(user)``, then a sampled response with its end token, then ``between(user)``,
    the next response, and so on. The ids of a message are those that the tokenizer gives to the rendered conversation,
    except that a text that looks like a token of the template stays text (see :class:`TextEncoder`).

    end_id          the assistant's end token in the template.
    end_ids         all tokens that end a response: ``end_id``, and those at which ``generate`` would stop. They are
                    sampled like any other token.
    first, later    the template's texts around a user's message; those of a later one begin with the end token's.
    trim            what the template does to the whitespace around a user's text.
    append_refusal  why turns cannot be appended; None: they can.
    append_note     how appended turns differ from the template's rendering; None: they do not.
    place           where a privileged block is spliced in; None: where the user's text begins.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    encoder: TextEncoder = field(repr=False)
    end_id: int
    end_ids: frozenset[int]
    first: Frame
    later: Frame
    trim: Callable[[str], str] = field(repr=False)
    append_refusal: str | None = None
    append_note: str | None = None
    place: Place | None = None
    enable_thinking: bool = False

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, *, enable_thinking: bool = False, stop_ids: Iterable[int] = ()
    ) -> ChatFormat:
        """Derive the format of a tokenizer's chat template.

        ``enable_thinking`` is passed to the template. The prompts ask for the thought in the response itself, so the
        template's own thinking mode is off by default. ``stop_ids`` end a response besides the template's end token.

        Raises UserError when there is no template, when it cannot render a first message or does not end within
        bounds, or when its assistant messages do not end with a token of their own.
        """
        template = ChatTemplate(tokenizer, enable_thinking)
        if not tokenizer.chat_template:
            raise UserError(f"model.name: {template.name!r} has no chat template; {INSTEAD}")
        template.check_bounds()
        encoder = TextEncoder(tokenizer)
        first, trim, growth = template.opening, template.trim, template.growth
        # A space before the end token (Llama 2) is not sampled, and not fed.
        later = replace(growth.frame, before=growth.frame.before.lstrip())
        end_id = next(iter(encoder.encode(later.before)), None)
        if end_id is None or end_id not in encoder.control_ids:
            raise UserError(
                f"model.name: the chat template of {template.name!r} must end an assistant message with a special "
                f"token, got {growth.frame.before[:20]!r}; {INSTEAD}"
            )
        return cls(
            tokenizer=tokenizer,
            encoder=encoder,
            end_id=end_id,
            end_ids=frozenset({end_id, *stop_ids}),
            first=first,
            later=later,
            trim=trim,
            append_refusal=growth.refusal,
            append_note=growth.note or (template.note if later != growth.frame and growth.refusal is None else None),
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
        return replace(self, place=Place("") if position == Position.BEFORE_TEMPLATE else None)

    def check_append(self) -> None:
        """UserError where turns cannot be appended; one warning in the log where they differ from the template."""
        if self.append_refusal is not None:
            raise UserError(self.append_refusal)
        if self.append_note is not None:
            _remark(self.append_note)

    def opening(self, user_text: str) -> tuple[list[int], int]:
        """Ids of the first user message up to where the assistant speaks, and the splice index.

        Privileged ids are inserted at the splice index and leave all other ids unchanged. Where a token spans the
        border between the template's text and the user's, the index is before that token.
        """
        before, text, after = self.first.before, self.trim(user_text), self.first.after
        ids = self.encoder.encode(before, text, after)
        return ids, self.encoder.splice_index(before if self.place is None else self.place.context, ids)

    def between(self, user_text: str) -> list[int]:
        """Ids between the assistant's end token and its next response, the user message included.

        ValueError where turns cannot be appended.
        """
        if self.append_refusal is not None:
            raise ValueError(self.append_refusal)
        ids = self.encoder.encode(self.later.before, self.trim(user_text), self.later.after)
        return ids[1:]  # the first one is the end token

    def privileged(self, text: str) -> list[int]:
        """Ids of a privileged block behind the template's text; the empty text gives no ids."""
        if self.place is None:
            return self.encoder.continued(self.first.before, "", text, "") if text else []
        text = text.strip() if self.place.strip else text
        place = self.place
        return self.encoder.continued(place.context, place.before, text, place.after) if text else []

    def thought_opened(self, *, first: bool) -> str:
        """The opening tag of a thought that the prompt of the first or of a later response leaves open; "": none.

        DeepSeek-R1's template writes the tag itself, so responses begin inside the thought.
        """
        prompt = (self.first if first else self.later).after
        return _OPEN if prompt.rfind(_OPEN) > prompt.rfind(_CLOSE) else ""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response without its end token. Other sampled special tokens are kept."""
        said = list(ids[:-1] if ids and ids[-1] in self.end_ids else ids)
        text = self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _system(self) -> Place:
        """The end of the template's default system message, or a new message where it has none."""
        template = ChatTemplate(self.tokenizer, self.enable_thinking)
        found = template.system()
        if found is None:
            raise UserError(
                f"teacher.position=system needs a system message, but the chat template of {template.name!r} has no "
                "place for one; set teacher.position=user_turn or before_template"
            )
        context, before, after = found
        if self.encoder.splice_index(context, self.encoder.encode(self.first.before)) < len(
            self.encoder.encode(context)
        ):
            raise UserError(
                f"teacher.position=system needs a token border at the system message, but the chat template of "
                f"{template.name!r} has none; set teacher.position=user_turn or before_template"
            )
        return Place(context, before, after, strip=True)


@cache
def _remark(text: str) -> None:
    log.warning("%s", text)
