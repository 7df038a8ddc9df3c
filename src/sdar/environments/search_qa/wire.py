"""The wire format of Search-R1's retrieval server, for client and server.

A request is ``{"query": text}`` (the code of arXiv 2605.15155) or ``{"queries": [texts]}`` (Search-R1), with ``topk``
and ``return_scores``. The reply is ``{"result": [hits, ...]}``, one list per query. A hit is
``{"document": {"id", "contents"}, "score"}``, or the document alone without ``return_scores``.
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
"""Most passages per query."""


class WireError(ValueError):
    """A message that is not in this format. The text is a clause with the reason."""


class GarbledError(WireError):
    """Bytes that are no JSON, such as half of a message or the page of a proxy: the next message may be whole."""


@dataclass(frozen=True)
class Request:
    """A parsed request."""

    queries: tuple[str, ...]
    top_k: int
    return_scores: bool


def encode_request(queries: Sequence[str], top_k: int, *, single: bool) -> bytes:
    """A request with scores. ``single``: the form with one query."""
    asked: dict[str, Any] = {"query": queries[0]} if single else {"queries": list(queries)}
    return json.dumps(asked | {"topk": top_k, "return_scores": True}).encode()


def decode_request(body: bytes, default_top_k: int) -> Request:
    """Read a request.

    Raises:
        WireError: a field is wrong; the message says what it must be and what it is.
    """
    message = _object(body)
    one, many = message.get("query"), message.get("queries")
    if (one is None) == (many is None):
        raise WireError("a request must have either query or queries")
    queries = many if one is None else [one]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise WireError("query must be a string, and queries a list of strings")
    top_k = message.get("topk")
    top_k = default_top_k if top_k is None else top_k
    if not isinstance(top_k, int) or isinstance(top_k, bool) or not 1 <= top_k <= MAX_TOP_K:
        raise WireError(f"topk must be a whole number >= 1 and <= {MAX_TOP_K}, got {top_k!r}")
    return_scores = message.get("return_scores")
    if return_scores is not None and not isinstance(return_scores, bool):
        raise WireError(f"return_scores must be true or false, got {return_scores!r}")
    return Request(tuple(map(readable, queries)), top_k, bool(return_scores))


def encode_reply(found: Sequence[Sequence[Hit]], *, return_scores: bool) -> bytes:
    """A reply, one list per query."""

    def plain(hit: Hit) -> dict[str, Any]:
        document = {"id": hit.passage.id, "contents": hit.passage.contents}
        return {"document": document, "score": hit.score} if return_scores else document

    return json.dumps({"result": [[plain(hit) for hit in hits] for hits in found]}).encode()


def decode_reply(body: bytes, num_queries: int, top_k: int) -> list[list[Hit]]:
    """Read a reply. Hits beyond ``top_k`` are dropped, and a hit without a score has score 0.

    Raises:
        WireError: it does not match the request. A wrong reply must not look like an empty result.
    """
    result = _object(body).get("result")
    if not isinstance(result, list) or len(result) != num_queries:
        count = len(result) if isinstance(result, list) else "no"
        raise WireError(f"it must have one list of results per query, got {count} lists for {num_queries} queries")
    return [_hits(hits)[:top_k] for hits in result]


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:  # wrong syntax, or wrong encoding
        raise GarbledError("it is not JSON") from error
    except RecursionError as error:
        raise WireError("it is nested too deeply") from error
    if not isinstance(message, dict):
        raise WireError("it is not a JSON object")
    return message


def _hits(hits: Any) -> list[Hit]:
    if not isinstance(hits, list):
        raise WireError("the results of a query must be a list")
    return [_hit(hit) for hit in hits]


def _hit(hit: Any) -> Hit:
    document = hit.get("document", hit) if isinstance(hit, dict) else None
    contents = document.get("contents") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(contents, str):
        raise WireError("a result must have a document with contents")
    return Hit(Passage(str(document.get("id", "")), readable(contents)), _score(hit.get("score", 0.0)))


def _score(given: Any) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool):
        with suppress(OverflowError):  # an integer may have hundreds of digits
            if math.isfinite(score := float(given)):
                return score
    raise WireError(f"the score of a result must be a finite number, got {str(given)[:50]!r}")
