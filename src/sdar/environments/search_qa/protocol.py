"""The text protocol of Search-R1: how responses are parsed, and how passages are shown.

A response thinks in ``<think>`` and then either searches, ``<search>query</search>``, or answers,
``<answer>answer</answer>``. Search results are shown in ``<information>``. An action is the tagged text itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sdar.environments.base import Projection
from sdar.environments.search_qa.retriever import Hit
from sdar.environments.tags import Tags

_TAGGED = {name: Tags(name, any_case=True) for name in ("search", "answer")}  # a search comes first
_OPENING = re.compile("<(?:search|answer)>", re.IGNORECASE)

NOTHING_DONE = "Neither a search nor an answer was given."
EMPTY_QUERY = "The search had no words."
NOTHING_FOUND = "Nothing was found."


@dataclass(frozen=True)
class Search:
    """A query for the retriever, without surrounding whitespace."""

    query: str


@dataclass(frozen=True)
class Answer:
    """The final answer, without surrounding whitespace."""

    text: str


def project(response: str) -> Projection:
    """The first complete search, else the first complete answer, with its tags; "" if there is neither.

    The rule is that of the released code (env_package/search/projection.py): the response is cut after the first
    ``</search>``, or, without one, after the first ``</answer>``, before the tags are read. The turn is invalid if
    neither is found, or if the whole response opens both kinds of tag, or one of them twice. A thought is optional.
    """
    closing = next((tag for tag in ("</search>", "</answer>") if tag in response), None)
    found = _first(response if closing is None else response.partition(closing)[0] + closing)
    if found is None:
        return Projection("", False)
    name, text = found
    return Projection(f"<{name}>{text}</{name}>", len(_OPENING.findall(response)) == 1)


def parse(action: str) -> Search | Answer | None:
    """The search or the answer of an action; None for any other text."""
    found = _first(action)
    if found is None:
        return None
    name, text = found
    return Search(text) if name == "search" else Answer(text)


def _first(text: str) -> tuple[str, str] | None:
    """Name and content of the first complete tag."""
    found = ((name, tags.first(text)) for name, tags in _TAGGED.items())
    return next(((name, inside.strip()) for name, inside in found if inside is not None), None)


def information(hits: Sequence[Hit]) -> str:
    """Passages, best first, in Search-R1's format without the quotation marks of titles."""
    lines = [f"Doc {rank}(Title: {hit.passage.title}) {hit.passage.text}" for rank, hit in enumerate(hits, start=1)]
    return tagged("\n".join(lines) if lines else NOTHING_FOUND)


def tagged(text: str) -> str:
    """A text in information tags."""
    return f"<information>{text}</information>"
