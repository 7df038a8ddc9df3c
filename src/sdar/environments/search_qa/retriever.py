"""What every retriever offers: the best passages for each of many queries, or a failure that is named as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


def readable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair: JSON can write those, and no tokenizer reads them."""
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
        """The first line without its quotation marks; "" where the contents are a single line."""
        head, rule, _ = self.contents.partition("\n")
        return head.strip().strip('"') if rule else ""

    @property
    def text(self) -> str:
        """What follows the title."""
        return self.contents.partition("\n")[2] if "\n" in self.contents else self.contents


@dataclass(frozen=True)
class Hit:
    """A passage that was found. Larger scores are better; their scale is the retriever's."""

    passage: Passage
    score: float


@dataclass(frozen=True)
class RetrievalFailure:
    """A query that could not be answered, through no fault of the query. ``reason`` is one sentence."""

    reason: str


Found = list[Hit] | RetrievalFailure
"""Hits, best first and at most as many as were asked for; or why there are none to be had."""


class Retriever(ABC):
    """Finds passages. One call may hold the queries of many episodes."""

    @abstractmethod
    def search(self, queries: Sequence[str], top_k: int) -> list[Found]:
        """Answer each query, in order. Does not raise for what happens outside: that is a failure of its queries."""

    def close(self) -> None:  # noqa: B027 - most retrievers hold nothing to release
        """Release connections and files. Idempotent."""
