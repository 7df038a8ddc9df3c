"""A retriever on another machine: a client of Search-R1's retrieval server."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Literal

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout, parse_url

from sdar.environments.search_qa import wire
from sdar.environments.search_qa.deadline import clock_of, limited_pools
from sdar.environments.search_qa.retriever import Found, Hit, RetrievalFailure, Retriever
from sdar.errors import UserError

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0
_CHUNK = 1 << 16
_MAX_REPLY = 1 << 28
"""Bytes of a reply; a server that never ends is wrong."""


class _AttemptError(Exception):
    """An attempt that failed. ``final``: another one would fail, too. ``wait_s``: what the server asks for."""

    def __init__(self, reason: str, *, final: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.final = final
        self.wait_s = wait_s


class HttpRetriever(Retriever):
    """Asks one or several servers; connections are kept.

    A request that fails (refused, too slow, cut off, a status of 5xx, 408 or 429, a reply that does not fit the
    question) is made again, at the next server, after a growing pause, or a longer one that the server asked for in
    seconds (Retry-After; 8 at most). What has not been answered after ``attempts`` or after ``patience_s`` is a failure
    of its queries, and of no others. Other statuses are not asked again: 4xx, and 3xx, as no redirect is followed.
    Proxies that the shell names are not used.

    Args:
        urls: addresses of servers over the same corpus, such as ``http://127.0.0.1:8000/retrieve``; they take turns.
        form: ``queries``, all queries of a call in one request (Search-R1), or ``query``, a request for each
            (the code of arXiv 2605.15155), several at a time.
        timeout_s: longest time of one request, reading the reply included; seconds above 0.
        attempts: of one request; at least 1.
        patience_s: longest time of one call, all attempts included; seconds above 0.
        batch_size: most queries of one request; at least 1.
        connections: most requests at a time; at least 1.

    Raises UserError for a setting out of range or an address that is none.
    """

    def __init__(
        self,
        urls: Sequence[str] | str,
        *,
        form: Literal["queries", "query"] = "queries",
        timeout_s: float = 60.0,
        attempts: int = 30,
        patience_s: float = 180.0,
        batch_size: int = 256,
        connections: int = 8,
    ) -> None:
        self.urls = [urls] if isinstance(urls, str) else list(urls or ())
        _check(self.urls, timeout_s=timeout_s, attempts=attempts, patience_s=patience_s, batch_size=batch_size,
               connections=connections)  # fmt: skip
        if form not in ("queries", "query"):
            raise UserError(f"environment.search_engine.form={form!r}: allowed are queries and query")
        self._single = form == "query"
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._patience_s = patience_s
        self._batch_size = 1 if self._single else batch_size
        self._pool = limited_pools(num_pools=len(self.urls), maxsize=connections)
        self._workers = ThreadPoolExecutor(connections, thread_name_prefix="retrieve")
        self._turn = count()

    def search(self, queries: Sequence[str], top_k: int) -> list[Found]:
        """See :class:`Retriever`."""
        deadline = time.monotonic() + self._patience_s
        batches = [queries[start : start + self._batch_size] for start in range(0, len(queries), self._batch_size)]
        answers = self._workers.map(lambda batch: self._answer(batch, top_k, next(self._turn), deadline), batches)
        return [found for answer in answers for found in answer]

    def close(self) -> None:
        """Close the connections. Idempotent; the retriever cannot be used afterwards."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._pool.clear()

    def _answer(self, queries: Sequence[str], top_k: int, turn: int, deadline: float) -> list[Found]:
        """Answer one request's queries, or the same failure for each."""
        body = wire.encode_request(queries, top_k, single=self._single)
        reason, asked_wait = "there was no time for it", 0.0
        tried = 0
        for attempt in range(self._attempts):
            url = self.urls[(turn + attempt) % len(self.urls)]
            left = deadline - time.monotonic()
            if left <= 0:
                break
            tried += 1
            try:
                return list(self._ask(url, body, len(queries), top_k, min(self._timeout_s, left)))
            except _AttemptError as error:
                reason, asked_wait = f"{url}: {error}", error.wait_s
                log.debug("attempt %d of %d: %s", attempt + 1, self._attempts, reason)
                if error.final:
                    break
            if attempt + 1 < self._attempts:
                wait = min(max(_FIRST_WAIT_S * 2 ** min(attempt, 10), asked_wait), _LONGEST_WAIT_S)
                time.sleep(min(wait, max(0.0, deadline - time.monotonic())))
        failure = RetrievalFailure(f"{reason} (after {tried} {'attempt' if tried == 1 else 'attempts'})")
        return [failure] * len(queries)

    def _ask(self, url: str, body: bytes, num_queries: int, top_k: int, seconds: float) -> list[list[Hit]]:
        """One attempt; _AttemptError says how it failed."""
        ends = time.monotonic() + seconds
        try:
            reply = self._pool.request(
                "POST",
                url,
                body=body,
                headers={"Content-Type": "application/json"},
                timeout=Timeout(total=seconds),
                preload_content=False,
                redirect=False,
            )
            clock = clock_of(reply)
            try:
                content = _read(reply, ends)
            except BaseException:
                reply.close()  # what is left of the reply must not be taken for the next one
                raise
            finally:
                clock.cancel()
            reply.release_conn()
        except HTTPError as error:
            if time.monotonic() >= ends:
                raise _AttemptError(f"its reply took longer than {seconds:.3g} s") from error
            raise _AttemptError(f"{type(error).__name__}: {error}") from error
        if reply.status != 200:
            again = reply.status >= 500 or reply.status in (408, 429)
            pause = reply.headers.get("Retry-After", "")
            wait_s = float(pause) if re.fullmatch("[0-9]{1,6}", pause) else 0.0
            raise _AttemptError(f"status {reply.status}: {content[:200]!r}", final=not again, wait_s=wait_s)
        try:
            return wire.decode_reply(content, num_queries, top_k)
        except wire.WireError as error:
            raise _AttemptError(f"its reply cannot be used: {error}") from error


def _read(reply: urllib3.BaseHTTPResponse, ends: float) -> bytes:
    """The whole body, within the time: a server that drips must not hold an episode for ever."""
    parts: list[bytes] = []
    size = 0
    while part := reply.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _MAX_REPLY:
            raise _AttemptError("its reply does not end", final=True)
    if time.monotonic() >= ends:
        raise _AttemptError("its reply took too long")  # and what has come may be a part
    return b"".join(parts)


def _check(urls: Sequence[str], **settings: float) -> None:
    if not urls:
        raise UserError("environment.search_engine.urls=[]: at least one address is needed")
    for url in urls:
        parsed = None
        with suppress(HTTPError):  # it cannot even be taken apart
            parsed = parse_url(url) if isinstance(url, str) else None
        if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host:
            raise UserError(
                f"environment.search_engine.urls: {url!r} is no address; "
                "one such as http://127.0.0.1:8000/retrieve is needed"
            )
    for name, value in settings.items():
        least = 0 if name.endswith("_s") else 1
        if not (0 < value < float("inf") if least == 0 else value >= 1 and isinstance(value, int)):
            allowed = "a number above 0" if least == 0 else "a whole number of at least 1"
            raise UserError(f"environment.search_engine.{name}={value}: allowed is {allowed}")
