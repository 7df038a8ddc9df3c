"""A client of Search-R1's retrieval server."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Literal

from sdar.config.fields import AtLeastOne, Positive, checked
from sdar.environments.search_qa import wire
from sdar.environments.search_qa.retriever import Found, Hit, RetrievalFailure, Retriever
from sdar.errors import UserError
from sdar.exchange import BrokenError, LateError, TooLargeError, exchange, is_http_address, limited_pools

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
"""Pause before the first retry; later ones double."""
_LONGEST_WAIT_S = 8.0
MAX_REPLY = 1 << 26
"""Most bytes of a reply."""


class _AttemptError(Exception):
    """A failed attempt. ``final``: another at this server would fail, too. ``wait_s``: the pause that it asks for."""

    def __init__(self, reason: str, *, final: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.final = final
        self.wait_s = wait_s


class HttpRetriever(Retriever):
    """Queries one or several servers over persistent connections.

    A failed request (refused, too slow, interrupted, not JSON, status 5xx, 408 or 429) is retried at the next server.
    The pause between attempts grows, and a server may ask for a longer one (Retry-After), up to 8 seconds. After
    ``attempts`` or ``patience_s`` the queries of the request fail; other queries are not affected. All other statuses
    are final, including 3xx, since redirects are not followed, and so is a reply in another form than this one's: such
    a server is not asked again, and without another the queries fail at once. Proxy variables of the shell are ignored.

    Args:
        urls: addresses of servers over the same corpus, such as ``http://127.0.0.1:8000/retrieve``, used in turn.
        form: ``queries``: all queries of a call in one request (Search-R1); ``query``: one request per query (the code
            of arXiv 2605.15155), several at a time.
        timeout_s: time limit of one request in seconds, including the reply.
        attempts: most attempts of one request.
        patience_s: time limit of one call in seconds, including all attempts.
        batch_size: most queries of one request.
        connections: most concurrent requests.

    Raises UserError for a setting out of range or an invalid address.
    """

    @checked
    def __init__(
        self,
        urls: Sequence[str] | str,
        *,
        form: Literal["queries", "query"] = "queries",
        timeout_s: Positive = 60.0,
        attempts: AtLeastOne = 30,
        patience_s: Positive = 180.0,
        batch_size: AtLeastOne = 256,
        connections: AtLeastOne = 8,
    ) -> None:
        self.urls = [urls] if isinstance(urls, str) else list(urls)
        _check_addresses(self.urls)
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

    def check_ready(self) -> None:
        """Ask every server once, for at most ``timeout_s``. UserError where none of them can be used."""
        body = wire.encode_request(["ready"], 1, single=self._single)
        asked = {
            url: self._workers.submit(self._ask, url, body, 1, 1, self._timeout_s) for url in dict.fromkeys(self.urls)
        }
        silent = {url: answer.exception() for url, answer in asked.items() if answer.exception() is not None}
        if len(silent) == len(asked):
            told = "; ".join(f"{url} ({reason})" for url, reason in silent.items())
            raise UserError(
                f"environment.search_engine.urls must name a server that answers, got {told}: start it, for example "
                "with sdar search-server, or set another address"
            )
        for url, reason in silent.items():
            log.warning("the search server %s cannot be used: %s", url, reason)

    def close(self) -> None:
        """Close the connections. Idempotent. The retriever cannot be used afterwards."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._pool.clear()

    def _answer(self, queries: Sequence[str], top_k: int, turn: int, deadline: float) -> list[Found]:
        """The answers to the queries of one request, or the same failure for each."""
        body = wire.encode_request(queries, top_k, single=self._single)
        reason, wait = "there was no time left", 0.0
        servers = [self.urls[(turn + number) % len(self.urls)] for number in range(len(self.urls))]
        tried = 0
        while tried < self._attempts and servers:
            time.sleep(min(wait, max(0.0, deadline - time.monotonic())))
            if (left := deadline - time.monotonic()) <= 0:
                break
            url = servers[tried % len(servers)]
            tried += 1
            try:
                return list(self._ask(url, body, len(queries), top_k, min(self._timeout_s, left)))
            except _AttemptError as error:
                reason = f"{url}: {error}"
                log.debug("attempt %d of %d: %s", tried, self._attempts, reason)
                wait = min(max(FIRST_WAIT_S * 2 ** min(tried - 1, 10), error.wait_s), _LONGEST_WAIT_S)
                if error.final:
                    servers, wait = [other for other in servers if other != url], 0.0
        failure = RetrievalFailure(f"{reason} (after {tried} {'attempt' if tried == 1 else 'attempts'})")
        return [failure] * len(queries)

    def _ask(self, url: str, body: bytes, num_queries: int, top_k: int, seconds: float) -> list[list[Hit]]:
        """One attempt. Raises _AttemptError with the reason of a failure."""
        try:
            reply = exchange(
                self._pool,
                "POST",
                url,
                body=body,
                headers={"Content-Type": "application/json"},
                seconds=seconds,
                max_bytes=MAX_REPLY,
            )
        except (LateError, BrokenError, TooLargeError) as error:
            raise _AttemptError(str(error), final=isinstance(error, TooLargeError)) from error
        if reply.status != 200:
            told = f"status {reply.status}: {reply.content[:200]!r}"
            raise _AttemptError(told, final=not reply.may_pass, wait_s=reply.wait_s)
        try:
            return wire.decode_reply(reply.content, num_queries, top_k)
        except wire.WireError as error:
            final = not isinstance(error, wire.GarbledError)
            raise _AttemptError(f"the reply is invalid: {error}", final=final) from error


def _check_addresses(urls: Sequence[str]) -> None:
    if not urls:
        raise UserError("environment.search_engine.urls must contain at least one address, got []")
    for url in urls:
        if not is_http_address(url):
            raise UserError(
                f"environment.search_engine.urls must be addresses such as http://127.0.0.1:8000/retrieve, got {url!r}"
            )
