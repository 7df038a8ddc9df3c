"""A chat template taken apart: sentinel texts are rendered in conversations of one, two and three turns.

From the texts between the sentinels follow the texts around each message, and whether a conversation can grow without
being rendered again; see :mod:`sdar.policy.chat` for the three kinds of templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from sdar.errors import UserError
from sdar.policy import template_trial
from sdar.policy.call_form import CallForm

Messages = list[dict[str, Any]]

INSTEAD = "use a model with a plain ChatML template, for example Qwen/Qwen2.5-1.5B-Instruct"
"""How a refusal ends."""

_USER = ("SENTINELUSERONE", "SENTINELUSERTWO", "SENTINELUSERTHREE")
_THOUGHT = ("<think>SENTINELTHOUGHTONE</think>", "<think>SENTINELTHOUGHTTWO</think>")
_ACTION = ("<action>SENTINELACTIONONE</action>", "<action>SENTINELACTIONTWO</action>")
_RESULT = ("SENTINELRESULTONE", "SENTINELRESULTTWO", "SENTINELRESULTTHREE")
_CALLED, _ARGUMENTS = "SENTINELNAME", {"SENTINELARGUMENT": "SENTINELVALUE"}
_CALL_ID = "call00000"
"""Some templates want nine letters and digits."""
_DATE = "01 Jan 2026"
_CLOCK = {
    "%-d": "1", "%-m": "1", "%a": "Thu", "%A": "Thursday", "%b": "Jan", "%B": "January", "%d": "01", "%D": "01/01/26",
    "%e": " 1", "%F": "2026-01-01", "%h": "Jan", "%H": "00", "%I": "12", "%j": "001", "%m": "01", "%M": "00",
    "%p": "AM", "%R": "00:00", "%S": "00", "%T": "00:00:00", "%x": "01/01/26", "%X": "00:00:00", "%y": "26",
    "%Y": "2026", "%z": "+0000", "%Z": "UTC", "%%": "%",
}  # fmt: skip
"""What the parts of a date are in templates that print today's: a run must not depend on the day."""
_STOPPED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace({name!r}, {value!r})" for name, value in _CLOCK.items())
    + " }}{% endmacro %}\n"
)
"""Goes before a template that asks for the date; the line break is not rendered."""
_EDGE = " \n"
_TRIMS: tuple[Callable[[str], str], ...] = (lambda text: text, str.strip, str.lstrip, str.rstrip)
"""What templates do to the whitespace around a message."""
_ODD = ' \n"é\t'
"""Stands around a result of which is found out what the template makes of it."""


def json_inside(text: str) -> str:
    """The text as JSON writes it, without its quotation marks."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


@dataclass(frozen=True)
class Frame:
    """Texts of the template before and after a user's text."""

    before: str
    after: str


@dataclass(frozen=True)
class Growth:
    """How a conversation continues: the frame of a later user message, which begins with what ends a response.

    ``refusal``: why it cannot (the frame then is what ends a response). ``note``: how it differs from the rendering.
    """

    frame: Frame
    refusal: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Results:
    """Texts of the template around results of tools, from what ends a response to where the next one begins.

    ``write``: what becomes of the text of a result.
    """

    before: str
    between: str
    after: str
    write: Callable[[str], str]


class ChatTemplate:
    """The chat template of a tokenizer.

    ``enable_thinking`` is passed to it, and a fixed date in place of today's. Every conversation begins with the
    ``system`` message, and has the ``tools`` (in OpenAI's form).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        enable_thinking: bool,
        system: str | None = None,
        tools: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.enable_thinking = enable_thinking
        self.name = tokenizer.name_or_path or type(tokenizer).__name__
        self._system = system
        self._lead: Messages = [] if system is None else [{"role": "system", "content": system}]
        self._tools: list[Any] | None = list(tools) or None

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
        if self._tools:
            conversations += [[*_answered(), *_results(1)], [*_answered(), *_results(3)], _calling()]
        shared = {**self.tokenizer.special_tokens_map, **self._options(), "tools": self._tools, "documents": None}
        renderings = [
            {
                **shared,
                "messages": [*self._lead, *messages],
                "add_generation_prompt": messages[-1]["role"] != "assistant",
            }
            for messages in conversations
        ]
        if excess := template_trial.runaway(text, renderings):
            raise UserError(
                f"model.name: the chat template of {self.name!r} must render short conversations within "
                f"{template_trial.SECONDS:g} s, {template_trial.MEMORY >> 30} GB and {template_trial.CHARACTERS:,} "
                f"characters, got one that {excess}; {INSTEAD}"
            )

    @cached_property
    def opening(self) -> Frame:
        """The frame of the first user message. UserError unless the message is shown exactly once."""
        pieces = _split(self.render(_conversation(1)), [_USER[0]])
        if pieces is None:
            raise UserError(f"model.name: the chat template of {self.name!r} does not show the user's text; {INSTEAD}")
        return Frame(*pieces)

    @cached_property
    def trim(self) -> Callable[[str], str]:
        """What the template does to the whitespace around a user's text. UserError for something else than trimming."""
        edged = f"{_EDGE}{_USER[0]}{_EDGE}"
        found = self._pieces([{"role": "user", "content": edged}], [_USER[0]])
        frame = self.opening
        for trim in _TRIMS:
            left, right = trim(edged).split(_USER[0])
            if found == [frame.before + left, right + frame.after]:
                return trim
        raise UserError(
            f"model.name: the chat template of {self.name!r} changes the whitespace of the user's text in a way that "
            f"is not known here; {INSTEAD}"
        )

    def system(self) -> tuple[tuple[str], str, str] | None:
        """Texts of the opening up to the place of a system text, and right before and after it; None: no place.

        In a template with a default system message (Qwen2.5) the text follows that message after a blank line.
        """
        plain = self.opening.before
        pieces = self._pieces([{"role": "system", "content": _ACTION[0]}, *_conversation(1)], [_ACTION[0], _USER[0]])
        if pieces is None:
            return None
        head, tail = pieces[:2]
        if len(plain) >= len(head) + len(tail) and plain.startswith(head) and plain.endswith(tail):
            own = plain[: len(plain) - len(tail)]
            return (own,), "\n\n" if own != head else "", ""
        for cut in range(len(plain)):
            if head.startswith(plain[:cut]) and tail.endswith(plain[cut:]):
                return (plain[:cut],), head[cut:], tail[: len(tail) - len(plain) + cut]
        return None

    @cached_property
    def growth(self) -> Growth:
        """How a conversation continues after a response."""
        try:
            thinking = self._anatomy(_THOUGHT)
            plain = self._anatomy(("", ""))
        except UserError:
            # The first message alone can be rendered: opening would have raised.
            return self.refused("fails on a second turn")
        if thinking is None or plain is None or (thinking.between, thinking.after) != (plain.between, plain.after):
            return self.refused("rewrites earlier turns")
        if not self._trims_later_messages(thinking):
            return self.refused("treats the whitespace of later messages differently from that of the first")
        frame = Frame(thinking.between, thinking.after)
        prompts = (self.opening.after, thinking.after)
        if thinking.spoken == tuple(prompt + thought for prompt, thought in zip(prompts, _THOUGHT, strict=True)):
            return Growth(frame)
        # Earlier responses may be shown differently, but their message must begin like the prompt for the next one. A
        # space at its beginning is left to the model (Llama 2).
        heads = zip(plain.spoken, prompts, thinking.spoken, strict=True)
        if all(
            spoken.startswith(head) and (prompt.startswith(head) or prompt.rstrip() == head.rstrip())
            for head, prompt, spoken in heads
        ):
            return Growth(frame, note=self.note)
        return self.refused("begins earlier responses differently from the next one")

    def shows_tools(self) -> bool:
        """Whether the opening names every tool, and is another one without them."""
        names = [tool["function"]["name"] for tool in self._tools or ()]
        plain = ChatTemplate(self.tokenizer, self.enable_thinking, self._system)
        text = self.render(_conversation(1))
        return all(name in text for name in names) and text != plain.render(_conversation(1))

    def results(self) -> Results | None:
        """The frame of results behind a response; None: the template shows none, or in a way that is not known here."""
        several = self._pieces([*_answered(), *_results(3)], [_ACTION[0], *_RESULT])
        single = self._pieces([*_answered(), *_results(1)], [_ACTION[0], _RESULT[0]])
        again = [*_answered(), *_results(1), {"role": "assistant", "content": _ACTION[1]}, _result(_RESULT[1])]
        later = self._pieces(again, [_ACTION[0], _RESULT[0], _ACTION[1], _RESULT[1]])
        odd = f"{_ODD}{_RESULT[0]}{_ODD}"
        shown = self._pieces([*_answered(), _result(odd)], [_ACTION[0], _RESULT[0]])
        if several is None or single is None or later is None or shown is None:
            return None
        before, between, other, after = several[1:]
        if between != other or single[1:] != [before, after] or later[3:] != [before, after]:
            return None
        if any(mark in text for text in (before, between, after) for mark in (_CALLED, _CALL_ID)):
            return None  # a result has more to it than its text
        for write in (*_TRIMS, json_inside):
            left, right = write(odd).split(_RESULT[0])
            if shown[1:] == [before + left, right + after]:
                return Results(before, between, after, write)
        return None

    def keeps_results(self, results: Results) -> bool:
        """Whether a conversation with results is rendered as it was appended."""
        first, later = self.opening, self.growth.frame
        for thoughts in (_THOUGHT, ("", "")):
            asked, said, user, again, _ = _conversation(3, thoughts)
            appended = [
                *(first.before, asked["content"], first.after, said["content"]),
                *(results.before, _RESULT[0], results.after, again["content"]),
                *(later.before, user["content"], later.after),
            ]
            if self.render([asked, said, _result(_RESULT[0]), again, user]) != "".join(appended):
                return False
        return True

    def calls(self) -> CallForm | None:
        """The form of calls; None: the template shows none, or in a form that is not known here."""
        answered = self._pieces(_answered(), [_USER[0], _ACTION[0]], prompt=False)
        called = self._pieces(_calling(), [_USER[0]], prompt=False)
        if answered is None or called is None or not called[1].endswith(answered[2]):
            return None
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(called[1], answered[1], strict=False))
        shown = called[1].removesuffix(answered[2])[sum(1 for _ in alike) :]
        return CallForm.found_in(shown, _CALLED, _ARGUMENTS)

    @property
    def note(self) -> str:
        """What a run is told where appended turns differ from the rendering."""
        return (
            f"the chat template of {self.name!r} does not show earlier responses as they were sampled (for "
            "example, it drops their thoughts); rollout=append keeps them as sampled, so from the second turn on "
            "the context differs from what the template would render"
        )

    def refused(self, reason: str) -> Growth:
        """A conversation that cannot grow; ``reason`` is a clause about the template."""
        sentence = (
            f"rollout.context=append needs a conversation that can be continued token by token, but the chat template "
            f"of {self.name!r} {reason}; set rollout=window (a fresh prompt each turn), or {INSTEAD}"
        )
        pieces = self._pieces(_answered(), [_ACTION[0]], prompt=False)
        # The tokenizer's end token where the template does not show what ends an assistant message.
        closing = (pieces[1] if pieces else "") or str(self.tokenizer.eos_token or "")
        return Growth(Frame(closing, ""), refusal=sentence)

    def render(self, messages: Sequence[dict[str, Any]], *, prompt: bool = True) -> str:
        """The text of a conversation. UserError where the template fails."""
        try:
            text = self.tokenizer.apply_chat_template(
                [*self._lead, *messages],
                tools=self._tools,
                chat_template=self._text,
                tokenize=False,
                add_generation_prompt=prompt,
                **self._options(),
            )
        except Exception as error:  # templates are programs: they may raise anything
            raise UserError(f"model.name: the chat template of {self.name!r} fails ({error}); {INSTEAD}") from error
        assert isinstance(text, str)
        return text

    @cached_property
    def _text(self) -> str:
        text = self.tokenizer.get_chat_template()
        return f"{_STOPPED_CLOCK}{text}" if "strftime_now" in text else text

    def _options(self) -> dict[str, Any]:
        return {"enable_thinking": self.enable_thinking, "date_string": _DATE}

    def _trims_later_messages(self, anatomy: _Anatomy) -> bool:
        """Whether the second message is trimmed as the first."""
        messages = _conversation(2)
        edged = f"{_EDGE}{_USER[1]}{_EDGE}"
        messages[-1] = {"role": "user", "content": edged}
        left, right = self.trim(edged).split(_USER[1])
        pieces = self._pieces(messages, [_ACTION[0], _USER[1]])
        return pieces is not None and pieces[1:] == [anatomy.between + left, right + anatomy.after]

    def _anatomy(self, thoughts: tuple[str, str]) -> _Anatomy | None:
        """The texts around sentinels in conversations of one, two and three user turns; None: they are inconsistent."""
        one, two, three = (self.render(_conversation(turns, thoughts)) for turns in (1, 2, 3))
        first = _split(one, _USER[:1])
        second = _split(two, [_USER[0], _ACTION[0], _USER[1]])
        third = _split(three, [_USER[0], _ACTION[0], _USER[1], _ACTION[1], _USER[2]])
        if first is None or second is None or third is None:
            return None
        begin, spoken, between, after = second
        if not (first[0] == begin == third[0] and [spoken, between] == third[1:3] and [between, after] == third[4:]):
            return None
        return _Anatomy((spoken, third[3]), between, after)

    def _pieces(self, messages: Messages, marks: Sequence[str], *, prompt: bool = True) -> list[str] | None:
        """See :func:`_split`; None also where the template refuses the messages."""
        try:
            return _split(self.render(messages, prompt=prompt), marks)
        except UserError:
            return None


@dataclass(frozen=True)
class _Anatomy:
    """``spoken``: from the end of each user's text to the action of its answer; ``between``: from there to the next."""

    spoken: tuple[str, str]
    between: str
    after: str


def _conversation(user_turns: int, thoughts: tuple[str, str] = ("", "")) -> Messages:
    messages = [{"role": "user", "content": _USER[0]}]
    for thought, action, user in zip(thoughts, _ACTION, _USER[1:user_turns], strict=False):
        messages += [{"role": "assistant", "content": thought + action}, {"role": "user", "content": user}]
    return messages


def _answered() -> Messages:
    return [*_conversation(1), {"role": "assistant", "content": _ACTION[0]}]


def _result(text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": _CALL_ID, "name": _CALLED, "content": text}


def _results(count: int) -> Messages:
    return [_result(text) for text in _RESULT[:count]]


def _calling() -> Messages:
    function = {"name": _CALLED, "arguments": _ARGUMENTS}
    call = {"id": _CALL_ID, "type": "function", "function": function}
    return [*_conversation(1), {"role": "assistant", "content": "", "tool_calls": [call]}]


def _split(text: str, marks: Sequence[str]) -> list[str] | None:
    """The pieces between the marks; None unless each occurs in the text exactly once, in this order."""
    pieces: list[str] = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        piece, _, text = text.partition(mark)
        pieces.append(piece)
    return [*pieces, text]
