"""Token bookkeeping of one growing conversation (``rollout.context=append``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdar.policy.chat import ChatFormat


@dataclass
class Prompt:
    """The ids to feed before the next response, and where the privileged block of a teacher would be spliced in."""

    ids: list[int]
    splice_index: int | None


@dataclass
class AppendConversation:
    """One conversation that only ever grows; ``length`` counts the tokens read and sampled so far."""

    chat: ChatFormat
    length: int = 0
    _cut: bool = field(default=False, repr=False)

    def open(self, user_text: str, privileged: str | None) -> Prompt:
        """The first prompt. A privileged text goes into the prompt itself, at the index a teacher would splice it.

        The splice index is then None: there is no place left where a teacher's block belongs.
        """
        ids, splice = self.chat.opening(user_text)
        block = self.chat.privileged(privileged) if privileged else []
        if not block:
            return Prompt(list(ids), splice)
        return Prompt([*ids[:splice], *block, *ids[splice:]], None)

    def follow(self, user_text: str) -> Prompt:
        """The ids between the last response and the next one.

        A response that was cut at its limit ends without its end token; the token is fed here, as context that was
        not sampled, so that the conversation stays well formed and the token carries no loss.
        """
        end = [self.chat.end_id] if self._cut else []
        return Prompt([*end, *self.chat.between(user_text)], None)

    def fits(self, prompt: Prompt, max_response_tokens: int, context_tokens: int) -> bool:
        """Whether the prompt and a response of full length fit into the context."""
        return self.length + len(prompt.ids) + max_response_tokens <= context_tokens

    def record(self, prompt: Prompt, response_ids: list[int]) -> tuple[str, bool]:
        """Take note of one turn; returns the response's text without its end token and whether it was cut."""
        ended = bool(response_ids) and response_ids[-1] == self.chat.end_id
        self.length += len(prompt.ids) + len(response_ids)
        self._cut = not ended
        return self.chat.decode(response_ids[:-1] if ended else response_ids), self._cut
