"""A corked transport: what is written in one turn of the event loop leaves as one segment.

uvicorn writes the head and the body of an answer apart, two calls of the system where one does: a tenth of what a small answer
costs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["CorkedProtocol"]


class _Corked:
    """An asyncio transport; everything but `write` and `close` is the plain one's."""

    def __init__(self, plain: asyncio.Transport) -> None:
        self._plain, self._held = plain, list[bytes]()
        self._soon = asyncio.get_running_loop().call_soon

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._plain.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = b"".join(self._held), []
            self._plain.write(held)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Corked(transport))  # type: ignore[arg-type]
