"""What bare ASGI applications share: the types of the protocol, how a body is read, how an answer is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import msgspec

from .refusals import Failed

__all__ = ["JSON", "Gone", "Headers", "Receive", "Scope", "Send", "answer", "body_of", "refuse"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")


class Gone(Failed):
    """The client closed the connection before its request was whole: nobody hears the answer."""

    def __init__(self) -> None:
        super().__init__(400, "the connection closed before the body was whole")


async def body_of(scope: Scope, receive: Receive, most: int) -> bytes:
    """The body of a request, read no further than `most` bytes. Raises Gone, and Failed: 413 where it is longer, 415 where it is
    compressed, as few bytes could unfold to many."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise Failed(415, "bodies are taken uncompressed only")
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and message["type"] == "http.request" and len(body) <= most:
        return body
    parts, size = [body], len(body)
    while message.get("more_body") and size <= most:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] == "http.disconnect":
        raise Gone
    if size > most:
        raise Failed(413, f"the body is longer than {most} bytes")
    return b"".join(parts)


async def answer(scope: Scope, send: Send, status: int, body: bytes, headers: Headers = (JSON,)) -> None:
    """Send an answer whole; of one to HEAD only what it is."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def refuse(scope: Scope, send: Send, failed: Failed) -> None:
    """Send a refusal, `{"error": "..."}`; nothing to who is gone."""
    if not isinstance(failed, Gone):
        more = [(name.encode(), value.encode()) for name, value in failed.headers.items()]
        await answer(scope, send, failed.status, msgspec.json.encode({"error": str(failed)}), [JSON, *more])
