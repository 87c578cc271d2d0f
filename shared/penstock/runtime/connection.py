"""A connection: uvicorn's HTTP protocol, with what a server in the open needs.

An answer leaves in one call of the system, where uvicorn makes two (a call costs a tenth of what a small answer does). A client
that is slow to ask, or to read the answer, is cut off, so that it cannot hold a connection; when there are too many, the one
that has let us wait longest makes room. That holds from the moment that a connection is there, before the handshake of TLS as
well: asyncio alone would let any number of clients take a minute for it. What is no HTTP is refused in the same form as
everything else, `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD", "WHOLE", "Connection", "Crowd"]

WHOLE: Final = 30.0
"""Seconds that a request may take to come (16 MiB at 5 Mbit/s), and an answer to be read on."""
HEAD: Final = 64 << 10
"""Bytes of a request beside its body: the head, and what stands between chunks or after them, once there is more than was read
at once (256 KiB at most). Servers allow 8 to 64 KiB."""

_REFUSAL: Final = (
    b'HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n{"error":"%s"}'
)


class Crowd:
    """The connections of a server that wait for their client: for a request to be whole, or an answer to be read.

    At most `most` connections; when all of them are being answered, one more is refused.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.asking: dict[Connection, float] = {}
        """Since when (loop's clock) no whole request has come, the longest first."""
        self.greeting: dict[Connection, asyncio.Transport] = {}
        """Those in the handshake of TLS, each with what is below it; they wait in `asking`, too."""
        self.reading: dict[Connection, float] = {}
        """Since when an answer is stuck, or a connection that was closed waits for the rest to be read, the longest first."""

    def cut(self, now: float) -> None:
        """Close what has waited for longer than WHOLE; call it every second or so."""
        while self.asking and now - (first := next(iter(self.asking.items())))[1] > WHOLE:
            self._leave(first[0])
        while self.reading and now - (stuck := next(iter(self.reading.items())))[1] > WHOLE:
            del self.reading[stuck[0]]
            stuck[0].transport.abort()

    def room(self, taken: int) -> bool:
        """Whether one may come in beside so many, after the one that has waited longest made room if that was needed."""
        if taken <= self.most:
            return True
        if self.asking:
            self._leave(next(iter(self.asking)))
            return True
        return False

    def _leave(self, connection: Connection) -> None:
        del self.asking[connection]
        if (below := self.greeting.pop(connection, None)) is not None:
            below.abort()
        elif connection.transport.get_write_buffer_size():
            connection.transport.abort()
        else:
            connection.refuse(b"408 Request Timeout", b"the request did not come in %d s" % WHOLE)


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
    """Given to uvicorn as its `http`, with the server's `crowd`, and its side of TLS where that is spoken."""

    def __init__(self, *uvicorns: Any, crowd: Crowd, tls: ssl.SSLContext | None = None, **own: Any) -> None:
        super().__init__(*uvicorns, **own)
        self._crowd, self._beside, self._tls, self._early = crowd, 0, tls, b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        room = self._crowd.room(len(self.connections) + len(self._crowd.greeting) + 1)
        if self._tls is None:
            self._begin(transport)
            if room:
                self._crowd.asking[self] = self.loop.time()
            else:
                self.refuse(b"503 Service Unavailable", b"all connections are busy")
        elif room:
            self._crowd.asking[self] = self.loop.time()
            self._crowd.greeting[self] = transport
            self._greeting = asyncio.ensure_future(self._greet(transport, self._tls))
            transport.pause_reading()  # what comes now is for TLS
        else:
            transport.abort()  # there is no saying why before the handshake

    def _begin(self, transport: Any) -> None:
        super().connection_made(_Corked(transport))  # type: ignore[arg-type]

    async def _greet(self, plain: asyncio.Transport, tls: ssl.SSLContext) -> None:
        """Shake hands, then go on as over a plain connection."""
        secret = None
        try:
            if not plain.is_closing():
                secret = await self.loop.start_tls(plain, self, tls, server_side=True, ssl_handshake_timeout=WHOLE)
        except OSError:  # ssl.SSLError is one; who does not shake hands is not talked to
            plain.abort()
        finally:
            self._crowd.greeting.pop(self, None)
        if secret is None or secret.is_closing():
            self._crowd.asking.pop(self, None)
            return
        self._begin(secret)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.asking.pop(self, None)
        if self.transport is None:  # it went as soon as hands were shaken
            return
        self._crowd.reading.pop(self, None)
        super().connection_lost(exc)

    def eof_received(self) -> None:
        if self.transport is not None:
            super().eof_received()

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # it came with the last of the handshake
            self._early += data
            return
        self._beside += len(data)
        super().data_received(data)
        if self._beside > HEAD and not self.transport.is_closing():
            self.refuse(b"431 Request Header Fields Too Large", b"the head of the request is longer than %d bytes" % HEAD)

    def on_message_begin(self) -> None:
        self._crowd.asking.setdefault(self, self.loop.time())
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._beside = 0
        self._crowd.asking.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # of an answer without a body
        super().on_response_complete()
        if self.transport.is_closing():
            self._crowd.reading.setdefault(self, self.loop.time())
        elif self.cycle.response_complete:
            self._crowd.asking.setdefault(self, self.loop.time())  # nothing else bounds what comes between two requests

    def pause_writing(self) -> None:
        self._crowd.reading.setdefault(self, self.loop.time())
        super().pause_writing()

    def resume_writing(self) -> None:
        self._crowd.reading.pop(self, None)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.refuse(b"400 Bad Request", b"this is no HTTP request")

    def refuse(self, status: bytes, words: bytes) -> None:
        """Say why, and close."""
        self._crowd.asking.pop(self, None)
        self._crowd.reading.setdefault(self, self.loop.time())
        self.transport.write(_REFUSAL % (status, len(words) + 12, words))
        self.transport.close()
