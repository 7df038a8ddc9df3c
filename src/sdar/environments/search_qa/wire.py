"""The wire format of Search-R1's retrieval server, for both ends of it.

A request is ``{"query": text}`` (as the code of arXiv 2605.15155 sends it) or ``{"queries": [texts]}`` (as Search-R1
does), with ``topk`` and ``return_scores``. The reply is ``{"result": [hits, ...]}``, one list per query; a hit is
``{"document": {"id", "contents"}, "score"}``, or the document alone where no scores were asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sdar.environments.search_qa.retriever import Hit, Passage, readable

MAX_TOP_K = 1000
"""More passages per query are not served."""


class WireError(ValueError):
    """A message that is not of this format; the text is a clause that says why."""


@dataclass(frozen=True)
class Request:
    """What a request asks for."""

    queries: tuple[str, ...]
    top_k: int
    return_scores: bool


def encode_request(queries: Sequence[str], top_k: int, *, single: bool) -> bytes:
    """A request with scores; ``single``: in the form that holds one query."""
    asked: dict[str, Any] = {"query": queries[0]} if single else {"queries": list(queries)}
    return json.dumps(asked | {"topk": top_k, "return_scores": True}).encode()


def decode_request(body: bytes, default_top_k: int) -> Request:
    """Read a request.

    Raises:
        WireError: naming the field, its value and what is allowed.
    """
    message = _object(body)
    one, many = message.get("query"), message.get("queries")
    if (one is None) == (many is None):
        raise WireError("either query or queries must be given")
    queries = many if one is None else [one]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise WireError("query must be a text and queries a list of texts")
    top_k = message.get("topk")
    top_k = default_top_k if top_k is None else top_k
    if not isinstance(top_k, int) or isinstance(top_k, bool) or not 1 <= top_k <= MAX_TOP_K:
        raise WireError(f"topk is {top_k!r}, allowed is a whole number from 1 to {MAX_TOP_K}")
    return_scores = message.get("return_scores")
    if return_scores is not None and not isinstance(return_scores, bool):
        raise WireError(f"return_scores is {return_scores!r}, allowed is true or false")
    return Request(tuple(map(readable, queries)), top_k, bool(return_scores))


def encode_reply(found: Sequence[Sequence[Hit]], *, return_scores: bool) -> bytes:
    """A reply, one list per query."""

    def plain(hit: Hit) -> dict[str, Any]:
        document = {"id": hit.passage.id, "contents": hit.passage.contents}
        return {"document": document, "score": hit.score} if return_scores else document

    return json.dumps({"result": [[plain(hit) for hit in hits] for hits in found]}).encode()


def decode_reply(body: bytes, num_queries: int, top_k: int) -> list[list[Hit]]:
    """Read a reply; hits beyond ``top_k`` are left out, and a hit without a score has 0.

    Raises:
        WireError: it is not what was asked for. A wrong reply must not pass for one that found nothing.
    """
    result = _object(body).get("result")
    if not isinstance(result, list) or len(result) != num_queries:
        count = len(result) if isinstance(result, list) else "no"
        raise WireError(f"it has {count} lists of results for {num_queries} queries")
    return [_hits(hits)[:top_k] for hits in result]


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:  # of the syntax, or of the encoding
        raise WireError("it is no JSON") from error
    except RecursionError as error:
        raise WireError("it is nested too deeply") from error
    if not isinstance(message, dict):
        raise WireError("it is no JSON object")
    return message


def _hits(hits: Any) -> list[Hit]:
    if not isinstance(hits, list):
        raise WireError("the results of a query are no list")
    return [_hit(hit) for hit in hits]


def _hit(hit: Any) -> Hit:
    document = hit.get("document", hit) if isinstance(hit, dict) else None
    contents = document.get("contents") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(contents, str):
        raise WireError("a result has no document with contents")
    return Hit(Passage(str(document.get("id", "")), readable(contents)), _score(hit.get("score", 0.0)))


def _score(given: Any) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool):
        with suppress(OverflowError):  # an integer may have hundreds of digits
            if math.isfinite(score := float(given)):
                return score
    raise WireError(f"a result has the score {str(given)[:50]!r}")
