"""A connection: uvicorn's HTTP protocol, with what a server in the open needs.

An answer leaves in one call of the system, where uvicorn makes two (a call costs a tenth of what a small answer does). A client
that is slow to ask, or to read the answer, is cut off, so that it cannot hold a connection; when there are too many, the one
that has let us wait longest makes room. What is no HTTP is refused in the same form as everything else, `{"error": "..."}`.
"""

from __future__ import annotations

import asyncio
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
        if connection.transport.get_write_buffer_size():
            connection.transport.abort()
            return
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
    """Given to uvicorn as its `http`, with the server's `crowd`."""

    def __init__(self, *uvicorns: Any, crowd: Crowd, **own: Any) -> None:
        super().__init__(*uvicorns, **own)
        self._crowd, self._beside = crowd, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Corked(transport))  # type: ignore[arg-type]
        if self._crowd.room(len(self.connections)):
            self._crowd.asking[self] = self.loop.time()
        else:
            self.refuse(b"503 Service Unavailable", b"all connections are busy")

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.asking.pop(self, None)
        self._crowd.reading.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
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
