"""Requests with a total time limit and replies of a limited size.

The time limit of a socket applies to each read. A server that sends a byte now and then, in the head of a reply or in
its body, never exceeds it and could block a request for hours.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout, parse_url

from sdar.errors import UserError

_CHUNK = 1 << 16


class LateError(Exception):
    """There was no whole reply within the time limit."""


class BrokenError(Exception):
    """There is no connection, or it ended within the reply."""


class TooLargeError(Exception):
    """The reply is larger than asked for."""


@dataclass(frozen=True)
class HttpReply:
    """A whole reply, whatever its status."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def wait_s(self) -> float:
        """Seconds that the server asks to wait for before the next attempt; 0 where it names none, or a date."""
        pause = self.headers.get("Retry-After", "")
        return float(pause) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", pause) else 0.0

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered later: 408, 429 and 5xx."""
        return self.status in (408, 429) or self.status >= 500


def is_http_address(url: str) -> bool:
    """Whether it is an ``http`` or ``https`` URL with a host."""
    try:
        parsed = parse_url(url)
    except HTTPError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def is_base_url(url: str) -> bool:
    """Whether paths can be appended to this address: it has no query and no fragment."""
    return is_http_address(url) and not (parse_url(url).query or parse_url(url).fragment)


def has_password(url: str) -> bool:
    """Whether an address names a user, which is to be written down nowhere."""
    try:
        return parse_url(url).auth is not None
    except HTTPError:
        return "@" in url


def api_key(variable: str) -> str | None:
    """The key in an environment variable; None: it is not set. UserError, without the key: it cannot be one."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"the environment variable {variable} must be a key of printable ASCII characters")
    return key or None


def without_key(text: str, key: str | None) -> str:
    """What a server says, without the key that it may repeat."""
    return text.replace(key, "[the key]") if key else text


def exchange(
    pools: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    seconds: float,
    max_bytes: int,
) -> HttpReply:
    """One request over :func:`limited_pools`, without redirects. Raises LateError, BrokenError or TooLargeError."""
    ends = time.monotonic() + seconds
    late = LateError(f"no whole reply within {seconds:g} s")
    try:
        reply = pools.request(
            method,
            url,
            body=body,
            headers=dict(headers),
            timeout=Timeout(total=seconds),
            preload_content=False,
            redirect=False,
        )
        clock = _clock_of(reply)
        try:
            content = _read(reply, max_bytes)
        except BaseException:
            reply.close()  # the rest of this reply must not be read as the next one
            raise
        finally:
            clock.cancel()
        reply.release_conn()
    except HTTPError as error:
        if time.monotonic() >= ends:
            raise late from error
        raise BrokenError(f"{type(error).__name__}: {error.__cause__ or error}") from error
    if time.monotonic() >= ends:
        raise late  # what was read may be incomplete
    return HttpReply(reply.status, reply.headers, content)


def _read(reply: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := reply.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise TooLargeError(f"the reply has more than {max_bytes} bytes")
    return b"".join(parts)


class _Limited(HTTPConnection):
    """Shuts the socket down ``timeout`` seconds after the request was sent.

    ``clock`` runs until it is canceled: by this class if there is no reply, else by the reader of the reply.
    """

    clock: threading.Timer

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        self.clock = threading.Timer(float(self.timeout or 0.0), shut, [self.sock])
        self.clock.daemon = True
        self.clock.start()
        try:
            return super().getresponse()
        except BaseException:
            self.clock.cancel()
            raise


def shut(connected: socket.socket) -> None:
    """End reads and writes of a connection that other threads are blocked in."""
    with suppress(OSError):  # the other side may have closed it
        # the plain socket, also below encryption: blocked reads end at once
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _LimitedHttps(_Limited, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Limited


class _PoolHttps(HTTPSConnectionPool):
    ConnectionCls = _LimitedHttps


def limited_pools(num_pools: int, maxsize: int) -> urllib3.PoolManager:
    """Pools whose requests have a total time limit and no retries."""
    manager = urllib3.PoolManager(num_pools=num_pools, maxsize=maxsize, retries=False)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolHttps}
    return manager


def _clock_of(reply: urllib3.BaseHTTPResponse) -> threading.Timer:
    """The clock of the connection of an unread reply."""
    connection = reply.connection
    assert isinstance(connection, _Limited)
    return connection.clock
