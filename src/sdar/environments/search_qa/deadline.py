"""Connections with a total time limit.

The time limit of a socket applies to each read. A server that sends a byte now and then, in the head of a reply or in
its body, never exceeds it and could block a request for hours.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


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


def clock_of(reply: urllib3.BaseHTTPResponse) -> threading.Timer:
    """The clock of the connection of an unread reply."""
    connection = reply.connection
    assert isinstance(connection, _Limited)
    return connection.clock
