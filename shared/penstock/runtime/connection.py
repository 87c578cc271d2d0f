"""A connection: uvicorn's HTTP protocol, with three things that a server in the open needs.

An answer leaves in one call of the system, where uvicorn makes two (a call costs a tenth of what a small answer does). A request
that does not come to its end in time is cut off, so that slow clients cannot hold connections. What is no HTTP is refused in the
same form as everything else, `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["WHOLE", "Connection", "cut"]

WHOLE: Final = 30.0
"""Seconds that a request may take to come: 16 MiB at 5 Mbit/s."""

_REFUSAL: Final = (
    b'HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n{"error":"%s"}'
)


class _Corked:
    """An asyncio transport on which the head of an answer waits for its body; all else is the plain one's."""

    def __init__(self, plain: asyncio.Transport) -> None:
        self._plain, self._head = plain, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def write(self, data: bytes) -> None:
        if not self._head and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):  # "100 Continue" goes at once
            self._head = data
        else:
            head, self._head = self._head, b""
            self._plain.write(head + data)

    def flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._plain.close()


class Connection(HttpToolsProtocol):
    """Given to uvicorn as its `http`."""

    began: float | None = None
    """When the request began that is not whole yet; None: there is none. Loop's clock."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Corked(transport))  # type: ignore[arg-type]
        self.began = self.loop.time()

    def on_message_begin(self) -> None:
        if self.began is None:
            self.began = self.loop.time()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self.began = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # of an answer without a body
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.refuse(b"400 Bad Request", b"this is no HTTP request")

    def refuse(self, status: bytes, words: bytes) -> None:
        """Say why, and close."""
        self.transport.write(_REFUSAL % (status, len(words) + 12, words))
        self.transport.close()


def cut(connections: Iterable[Any], now: float) -> None:
    """Close connections whose request has been coming for longer than `WHOLE`; call it every second or so."""
    for connection in list(connections):
        if isinstance(connection, Connection) and connection.began is not None and now - connection.began > WHOLE:
            connection.refuse(b"408 Request Timeout", b"the request did not come in %d s" % WHOLE)
