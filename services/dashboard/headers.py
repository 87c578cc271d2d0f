"""Headers of every response: the page may load its own files, and nothing and nobody else. (The server adds nosniff.)"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Sealed"]

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


class Sealed:
    """Adds HEADERS as a response starts; bodies pass untouched, streams too. What does not say how long it keeps is asked for
    anew each time, so that an upgrade shows at once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                kept = any(name.lower() == b"cache-control" for name, _ in given)
                message["headers"] = [*given, *self._headers, *([] if kept else [(b"cache-control", b"no-cache")])]
            await send(message)

        await self._app(scope, receive, sealed if scope["type"] == "http" else send)
