"""The prompts of a model: one growing conversation, or a fresh prompt every turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdar.policy.chat import ChatFormat


@dataclass
class Prompt:
    """The ids to feed before the next response, and the splice index of a teacher's privileged block.

    ``privileged_tokens`` of the ids are a privileged block that the policy itself reads; ``splice_index`` is then None,
    because there is no place left for a teacher's block. ``thought`` is the opening tag of a thought in which the
    response begins, because the chat template has opened it; "" if there is none.
    """

    ids: list[int]
    splice_index: int | None
    privileged_tokens: int = 0
    thought: str = ""


@dataclass
class WindowConversation:
    """A fresh prompt with a single user message every turn (``rollout.context=window``), each with a splice index.

    A privileged text goes into every prompt. ``length``: tokens of the context before the next prompt.
    """

    chat: ChatFormat
    privileged: str | None = None
    length: int = 0

    def prompt(self, user_text: str, results: Sequence[str] = ()) -> Prompt:  # noqa: ARG002 - the text says them, too
        """The next prompt. It changes nothing and may be called again with a shorter text.

        ``results`` of tools are what the text says, in a growing conversation whose template has messages for them.
        """
        ids, splice = self.chat.opening(user_text)
        block = self.chat.privileged(self.privileged) if self.privileged else []
        thought = self.chat.thought_opened(first=True)
        if not block:
            return Prompt(list(ids), splice, thought=thought)
        return Prompt([*ids[:splice], *block, *ids[splice:]], None, len(block), thought)

    def record(self, prompt: Prompt, response_ids: list[int]) -> tuple[str, bool]:  # noqa: ARG002 - nothing is kept
        """Record one turn; returns the response's text without its end token, and whether it was cut before one."""
        return self.chat.decode(response_ids), not self.chat.end_ids.intersection(response_ids[-1:])

    def said(self, prompt: Prompt, response: str) -> str:
        """What an environment reads of a response: with the thought's tag, and calls of tools in their one form."""
        text = prompt.thought + response
        return text if self.chat.calls is None else self.chat.calls.canonical(text)


class AppendConversation(WindowConversation):
    """One growing conversation (``rollout.context=append``); only its first prompt is a fresh one.

    A privileged text goes into the first prompt, at the splice index of a teacher's block.
    """

    _ended = True

    def prompt(self, user_text: str, results: Sequence[str] = ()) -> Prompt:
        """The first user message; later the ids between the last response and the next one.

        A response that was cut at its limit has no end token, and others end with another one than the template's. The
        template's token is fed here, as context that was not sampled, so the conversation stays well-formed and the
        token carries no loss.
        """
        if self.length == 0:
            return super().prompt(user_text)
        end = [] if self._ended else [self.chat.end_id]
        thought = self.chat.thought_opened(first=False)
        told = self.chat.answer(results) if results and self.chat.results else self.chat.between(user_text)
        return Prompt([*end, *told], None, thought=thought)

    def record(self, prompt: Prompt, response_ids: list[int]) -> tuple[str, bool]:
        """See :class:`WindowConversation`."""
        self._ended = response_ids[-1:] == [self.chat.end_id]
        self.length += len(prompt.ids) + len(response_ids)
        return super().record(prompt, response_ids)
