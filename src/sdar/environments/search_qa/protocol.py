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

_SEARCH = re.compile(r"<search>(.*?)</search>", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_SEARCH_OPEN = re.compile(r"<search>", re.IGNORECASE)
_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)

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
    cut = response
    for closing in ("</search>", "</answer>"):
        if closing in response:
            cut = response.partition(closing)[0] + closing
            break
    action = ""
    for pattern, name in ((_SEARCH, "search"), (_ANSWER, "answer")):
        found = pattern.search(cut)
        if found:
            action = f"<{name}>{found.group(1).strip()}</{name}>"
            break
    opened = len(_SEARCH_OPEN.findall(response)), len(_ANSWER_OPEN.findall(response))
    return Projection(action, bool(action) and sum(opened) == 1)


def parse(action: str) -> Search | Answer | None:
    """The search or the answer of an action; None for any other text."""
    for pattern, kind in ((_SEARCH, Search), (_ANSWER, Answer)):
        found = pattern.search(action)
        if found:
            return kind(found.group(1).strip())
    return None


def information(hits: Sequence[Hit]) -> str:
    """Passages in Search-R1's format, best first."""
    lines = [f"Doc {rank}(Title: {hit.passage.title}) {hit.passage.text}" for rank, hit in enumerate(hits, start=1)]
    return tagged("\n".join(lines) if lines else NOTHING_FOUND)


def tagged(text: str) -> str:
    """A text in information tags."""
    return f"<information>{text}</information>"
