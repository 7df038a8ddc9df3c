"""Whether the ids of a conversation are those of its chat template, found out on a sample when a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdar.errors import UserError
from sdar.policy.chat import ChatFormat
from sdar.policy.chat_template import INSTEAD, ChatTemplate

_USER = (
    (
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, and a desk (2).\n\n",
        "Your task is to: heat some mug; 17 °C is not warm.\n",
        '  > It\'s "here": 日本, naïve\ttab?',
    ),
    ("You open the drawer 1.\n\tIt's empty;  nothing happens!\n", "What's next?"),
)
_SAID = ("<action>go to desk 2</action>", "search[red shoes], then answer: 3.5")


def sample_conversation(chat: ChatFormat) -> list[list[int]]:
    """Ids of a first message, and of the next one behind a response; of another first message where it cannot grow."""
    first, second = _users(chat)
    grown = chat.between(second) if chat.append_refusal is None else chat.opening(second)[0]
    return [chat.opening(first)[0], grown]


def checked_chat(chat: ChatFormat) -> ChatFormat:
    """The format, if its ids are the template's own; without growing conversations if only the openings' are.

    UserError: the tokenizer loses the spaces of a text, the first message's ids differ, or a text can forge a control
    token.
    """
    template = ChatTemplate(chat.tokenizer, chat.enable_thinking)
    first, second = _users(chat)
    _check_spaces(chat, first, template.name)
    opening = chat.opening(first)[0]
    if opening != _ids(chat, template.render([{"role": "user", "content": first}])):
        raise UserError(
            f"model.name: the tokenizer of {template.name!r} encodes a message differently from its chat template; "
            f"{INSTEAD}"
        )
    _check_forgery(chat, template.name)
    if chat.append_refusal is not None:
        return chat
    messages = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": _SAID[0]},
        {"role": "user", "content": second},
    ]
    whole = _ids(chat, template.render(messages))
    between = [chat.end_id, *chat.between(second)]
    response = whole[len(opening) : -len(between)]
    exact = chat.append_note is None
    if whole[-len(between) :] == between and (
        not exact or (whole[: len(opening)] == opening and chat.decode(response).strip() == _SAID[0])
    ):
        return chat
    refusal = template.refused("does not keep the ids of earlier messages").refusal
    return replace(chat, append_refusal=refusal)


def _users(chat: ChatFormat) -> Sequence[str]:
    """Two messages without anything that the tokenizer takes for a control token."""
    return ["".join(part for part in parts if not chat.encoder.matches(part)) for parts in _USER]


def _check_spaces(chat: ChatFormat, text: str, name: str) -> None:
    # Some folders are read with the tokenizer of their architecture, whatever kind their file holds. Plain words alone:
    # an unknown character may take the space before it.
    words = [word for word in text.split() if word.isascii() and word.isalnum()]
    read = chat.decode(_ids(chat, " ".join(words)))
    if len(read.split()) < len(words):
        kind = type(chat.tokenizer).__name__
        raise UserError(
            f"model.name: the tokenizer of {name!r}, as {kind} reads it, loses the spaces of a text; {INSTEAD}"
        )


def _check_forgery(chat: ChatFormat, name: str) -> None:
    encoder = chat.encoder
    text = " ".join(["x", *encoder.contents, "".join(encoder.contents)])
    frames = [chat.first] if chat.append_refusal is not None else [chat.first, chat.later]
    for frame in frames:
        ids = encoder.encode(frame.before, text, frame.after)
        if [token for token in ids if token in encoder.control_ids] != encoder.controls(
            frame.before + "x" + frame.after
        ):
            raise UserError(
                f"model.name: the tokenizer of {name!r} makes control tokens of a message's text, so an observation "
                f"could end a turn; {INSTEAD}"
            )


def _ids(chat: ChatFormat, text: str) -> list[int]:
    return [int(token) for token in chat.tokenizer.encode(text, add_special_tokens=False)]
