"""A corked transport: the head of an answer waits for its body, and both leave in one call of the system.

uvicorn writes them apart, and a call costs a tenth of what a small answer does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["CorkedProtocol"]


class _Corked:
    """An asyncio transport; everything but `write`, `close` and `flush` is the plain one's."""

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


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Corked(transport))  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # of an answer without a body
        super().on_response_complete()
