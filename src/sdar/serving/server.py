"""A service at an address, until it is asked to end. Needs the extra ``sdar[serve]``."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn

from sdar.errors import UserError
from sdar.serving.app import Service

_END_S = 5
"""How long clients may take to read what they are being sent when the server ends, in seconds."""


def listen(host: str, port: int) -> socket.socket:
    """A socket at which clients may already connect; port 0 takes a free one. UserError: the address cannot be had."""
    try:
        # The first address decides between IPv4 and IPv6.
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on host={host} port={port} ({reason})") from error


def url_of(listening: socket.socket) -> str:
    """What clients call the base URL."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class ChatServer(uvicorn.Server):
    """Answers at a socket.

    SIGINT and SIGTERM end it: what is being answered ends with an error, and no other signal handler is called.
    ``stop`` does so from another thread.
    """

    def __init__(self, service: Service, listening: socket.socket) -> None:
        self._socket = listening
        self.service = service
        super().__init__(
            uvicorn.Config(
                service.app(),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_END_S,
            )
        )

    @property
    def url(self) -> str:
        """See :func:`url_of`."""
        return url_of(self._socket)

    def serve_until_stopped(self) -> None:
        """Answer requests until a signal, or ``stop``."""
        try:
            self.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self.service.close()

    def stop(self) -> None:
        """End; returns at once."""
        self.service.stopping = self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Of a signal. The second one does not wait for clients."""
        self.force_exit = self.should_exit
        self.stop()
