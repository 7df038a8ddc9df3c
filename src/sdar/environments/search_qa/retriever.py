"""The retriever interface: the best passages for each of many queries, or an explicit failure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


def readable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which JSON can encode and no tokenizer accepts."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass(frozen=True)
class Passage:
    """One passage of a corpus. ``contents`` is ``"Title"``, a line break, and the text, as in Search-R1's corpus."""

    id: str
    contents: str

    @property
    def title(self) -> str:
        """The first line without its quotation marks; "" if the contents are a single line."""
        head, rule, _ = self.contents.partition("\n")
        return head.strip().strip('"') if rule else ""

    @property
    def text(self) -> str:
        """The text after the title."""
        return self.contents.partition("\n")[2] if "\n" in self.contents else self.contents


@dataclass(frozen=True)
class Hit:
    """A found passage. Higher scores are better; their scale depends on the retriever."""

    passage: Passage
    score: float


@dataclass(frozen=True)
class RetrievalFailure:
    """A query that could not be answered for an external reason. ``reason`` is one sentence."""

    reason: str


Found = list[Hit] | RetrievalFailure
"""At most ``top_k`` hits, best first, or the reason of a failure."""


class Retriever(ABC):
    """Finds passages. One call may contain the queries of many episodes."""

    @abstractmethod
    def search(self, queries: Sequence[str], top_k: int) -> list[Found]:
        """Answer each query, in order. An external error is a failure of its queries, not an exception."""

    def check_ready(self) -> None:  # noqa: B027 - most retrievers need nothing from outside
        """Raise UserError where something outside does not answer. It takes a bounded time."""

    def close(self) -> None:  # noqa: B027 - most retrievers have nothing to release
        """Release connections and files. Idempotent."""
