"""Where nobody is asked for a key, on loopback, a browser is let in by its user's own doing only: not by a page from elsewhere.

A page may have the browser of whoever reads it ask any address, this machine's own too. So a name that is not this machine's is
refused (it may belong to such a page: DNS rebinding), and what changes anything is refused when a page from elsewhere sends it.
Programs send no `Origin`, and are not concerned.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ..runtime.asgi import Receive, Scope, Send
from .access import loopback
from .door import App, Audit, Denied, turned_away

__all__ = ["SameOrigin"]

KNOWN = 1_000
"""Values of headers that are remembered to be of this machine."""


class SameOrigin:
    """The application, for those on this machine."""

    def __init__(self, app: App) -> None:
        self._app, self._audit = app, Audit()
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            reads = scope["method"] in ("GET", "HEAD")
            for name, value in scope["headers"]:
                if (name == b"host" or (name == b"origin" and not reads)) and value not in self._known:
                    try:
                        self._look(name, value)
                    except Denied as denied:
                        self._audit.note(denied, scope)
                        await turned_away(denied, scope, send)
                        return
        await self._app(scope, receive, send)

    def _look(self, name: bytes, value: bytes) -> None:
        text = value.decode("latin-1")
        if not _here(text if name == b"origin" else f"//{text}"):
            if name == b"host":
                raise Denied(
                    421, f"this server is 127.0.0.1 and localhost, not {text[:80]}; behind a proxy: PENSTOCK_HTTP_OPEN=true"
                )
            raise Denied(403, f"a page of {text[:80]} may not send anything here")
        if len(self._known) < KNOWN:
            self._known.add(value)


def _here(url: str) -> bool:
    """Whether an address is this machine's own.

    >>> [_here(url) for url in ("//127.0.0.1:8801", "//[::1]", "http://localhost:3000", "//a.example:8801", "null", "//[")]
    [True, True, True, False, False, False]
    """
    try:
        host: Any = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return loopback(host) or host.endswith(".localhost")
