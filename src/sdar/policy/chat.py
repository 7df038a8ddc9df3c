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

A preface - system message and tools - makes another format of the same template (:meth:`ChatFormat.prefaced`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from sdar.environments.tools import described, joined
from sdar.episode import NO_PREFACE, Preface
from sdar.errors import UserError
from sdar.policy.call_form import CallForm
from sdar.policy.chat_template import INSTEAD, ChatTemplate, Frame, Results
from sdar.policy.encoding import Pieces, TextEncoder, TextMemory
from sdar.policy.marks import Marks

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

    ``context``  the texts before the block
    ``before``   text before the block's own
    ``after``    text after it
    ``strip``    whether whitespace around the block is removed: it is a whole message, or the end of one
    """

    context: Pieces
    before: str = ""
    after: str = ""
    strip: bool = False


@dataclass(frozen=True)
class ChatFormat:
    """Token ids around the messages of a conversation.

    A growing conversation is ``opening(user)``, then a sampled response with its end token, then ``between(user)`` or
    ``answer(results)``, the next response, and so on. The ids of a message are those that the tokenizer gives to the
    rendered conversation, except that a text that looks like a token of the template stays text (see
    :class:`TextEncoder`).

    end_id          the assistant's end token in the template.
    end_ids         all tokens that end a response: ``end_id``, and those at which ``generate`` would stop. They are
                    sampled like any other token.
    first, later    the template's texts around a user's message; those of a later one begin with the end token's.
    trim            what the template does to the whitespace around a user's text.
    append_refusal  why turns cannot be appended; None: they can.
    append_note     how appended turns differ from the template's rendering; None: they do not.
    place           where a privileged block is spliced in; None: where the user's text begins. See ``position``.
    preface         what the template writes in front of the first user message, apart from its own.
    opened          the template's and the preface's texts in front of the first user's text.
    lead            text in front of that text, of a preface that the template has no place for.
    results         the template's texts around results of tools; None: results are a user's message.
    calls           the form in which the model calls tools; None: that of the text that describes them, or there are
                    none.
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
    position: Position = Position.USER_TURN
    preface: Preface = NO_PREFACE
    opened: Pieces = ("",)
    lead: str = ""
    results: Results | None = None
    calls: CallForm | None = None
    _prefaced: TextMemory[ChatFormat] = field(default_factory=TextMemory, init=False, repr=False, compare=False)

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
        derived = _derived(template, encoder)
        return cls(
            tokenizer=tokenizer,
            encoder=encoder,
            end_ids=frozenset({derived["end_id"], *stop_ids}),
            opened=(template.opening.before,),
            enable_thinking=enable_thinking,
            **derived,
        )

    def at(self, position: str) -> ChatFormat:
        """The same format with privileged blocks spliced in at ``position``; see :class:`Position`.

        UserError: the position is unknown, or the template has no place for a system message.
        """
        allowed = [name.value for name in Position]
        if position not in allowed:
            raise UserError(f"teacher.position must be {' or '.join(map(repr, allowed))}, got {position!r}")
        chosen = Position(position)
        if chosen is Position.SYSTEM:
            return replace(self, position=chosen, place=self._system())
        return replace(self, position=chosen, place=Place(("",)) if chosen is Position.BEFORE_TEMPLATE else None)

    def prefaced(self, preface: Preface) -> ChatFormat:
        """The same format with a system message and tools in front of the first user message.

        They are written by the template; their texts forge no token. What it has no place for is text: tools without a
        form that is known here are described in the system message, and a system message goes in front of the first
        user's text. Which of it, is logged once. UserError: the template does not end within bounds.
        """
        texts = (repr(preface.system), *(text for t in preface.tools for text in (t.name, t.description, t.schema)))
        return self._prefaced.get(texts, lambda: self._with(preface) if preface else self)

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
        text = self.trim(joined(self.lead, user_text))
        ids = self.encoder.encode(*self.opened, text, self.first.after)
        return ids, self.encoder.splice_index(self.opened if self.place is None else self.place.context, ids)

    def between(self, user_text: str) -> list[int]:
        """Ids between the assistant's end token and its next response, the user message included.

        ValueError where turns cannot be appended.
        """
        if self.append_refusal is not None:
            raise ValueError(self.append_refusal)
        ids = self.encoder.encode(self.later.before, self.trim(user_text), self.later.after)
        return ids[1:]  # the first one is the end token

    def answer(self, results: Sequence[str]) -> list[int]:
        """As :meth:`between`, with results of tools in place of a user's message. The format must have ``results``."""
        frame = self.results
        assert frame is not None, "the template has no messages of tools"
        pieces = [frame.before]
        for result in results:
            pieces += [frame.write(result), frame.between]
        return self.encoder.encode(*pieces[:-1], frame.after)[1:]

    def privileged(self, text: str) -> list[int]:
        """Ids of a privileged block behind the template's text; the empty text gives no ids."""
        if self.place is None:
            return self.encoder.continued(self.opened, "", text, "") if text else []
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

    def _with(self, preface: Preface) -> ChatFormat:
        """The first of three ways to write a preface that the template knows; the last one needs nothing of it."""
        name, text = self._template.name, described(preface.tools)
        made = self._written(preface)
        if made is not None:
            return made
        if preface.tools:
            _remark(
                f"the chat template of {name!r} has no tools in a form that is known here: they are described in text, "
                "calls are <tool_call> and results <tool_response>"
            )
            made = self._written(Preface(joined(preface.system, text)))
            if made is not None:
                return made
        _remark(
            f"the chat template of {name!r} has no place for a system message: it stands in front of the first user "
            "message"
        )
        return replace(self, lead=joined(preface.system, text))

    def _written(self, preface: Preface) -> ChatFormat | None:
        """The format with a preface as the template writes it; None: it does not, or not as the policy needs it."""
        marks = Marks.of(preface, self.encoder)
        template = ChatTemplate(self.tokenizer, self.enable_thinking, marks.system, marks.tools)
        real = ChatTemplate(self.tokenizer, self.enable_thinking, preface.system, [t.form() for t in preface.tools])
        template.check_bounds()
        try:
            derived = _derived(template, self.encoder)
            opened = marks.filled(template, real)
            results = template.results() if preface.tools else None
            calls = template.calls() if preface.tools else None
            if opened is None or derived["end_id"] != self.end_id:
                return None
            if derived["append_refusal"] is not None and self.append_refusal is None:
                return None
            if preface.tools and (calls is None or not template.shows_tools()):
                return None
            if preface.tools and derived["append_refusal"] is None:
                if results is None:
                    return None
                results = replace(results, before=results.before.lstrip())
                if self.encoder.encode(results.before)[0] != self.end_id:
                    return None
                if not template.keeps_results(results):
                    derived["append_note"] = template.note
            derived["first"] = Frame("".join(opened), template.opening.after)
            made = replace(self, preface=preface, opened=opened, results=results, calls=calls, **derived)
            return made.at(self.position)
        except UserError:
            return None

    def _system(self) -> Place:
        """The end of the system message, or a new message where there is none."""
        found = self._end_of_preface() if self.preface else self._template.system()
        if found is None:
            raise UserError(
                f"teacher.position=system needs a system message, but the chat template of {self._template.name!r} has "
                "no place for one; set teacher.position=user_turn or before_template"
            )
        context, before, after = found
        ids = self.encoder.encode(*self.opened)
        if self.encoder.splice_index(context, ids) < len(self.encoder.encode(*context)):
            raise UserError(
                f"teacher.position=system needs a token border at the system message, but the chat template of "
                f"{self._template.name!r} has none; set teacher.position=user_turn or before_template"
            )
        return Place(context, before, after, strip=True)

    def _end_of_preface(self) -> tuple[Pieces, str, str] | None:
        """The place before the token that ends the system message, or right behind its text; None: there is neither."""
        system = self.preface.system
        begin = 1 if system is None else self.opened.index(system, 1) + 1
        for place in range(begin - begin % 2, len(self.opened), 2):
            head, found, _ = self.opened[place].partition(str(self.tokenizer.convert_ids_to_tokens(self.end_id)))
            if found:
                return (*self.opened[:place], head), "" if head.endswith("\n\n") else "\n\n", ""
        return None if system is None else ((*self.opened[:begin], ""), "\n\n", "")

    @property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.enable_thinking)


def _derived(template: ChatTemplate, encoder: TextEncoder) -> dict[str, Any]:
    """The fields of a format that a template decides. UserError where it cannot be used."""
    first, trim, growth = template.opening, template.trim, template.growth
    # A space before the end token (Llama 2) is not sampled, and not fed.
    later = replace(growth.frame, before=growth.frame.before.lstrip())
    end_id = next(iter(encoder.encode(later.before)), None)
    if end_id is None or end_id not in encoder.control_ids:
        raise UserError(
            f"model.name: the chat template of {template.name!r} must end an assistant message with a special "
            f"token, got {growth.frame.before[:20]!r}; {INSTEAD}"
        )
    return {
        "end_id": end_id,
        "first": first,
        "later": later,
        "trim": trim,
        "append_refusal": growth.refusal,
        "append_note": growth.note or (template.note if later != growth.frame and growth.refusal is None else None),
    }


@cache
def _remark(text: str) -> None:
    log.warning("%s", text)
