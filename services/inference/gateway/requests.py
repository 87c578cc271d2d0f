"""What the gateway reads of a request, whatever it asks: its body, the list in it, the trace that it belongs to."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.errors import Refused
from penstock.runtime.asgi import Receive, Scope, body_of
from penstock.runtime.refusals import Failed
from penstock.runtime.telemetry import W3C

__all__ = ["MAX_EVENTS", "listed", "plain_body", "traceparent", "traceparent_of"]

MAX_EVENTS: Final = 1_000
"""Of one request."""

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


async def plain_body(scope: Scope, receive: Receive, most: int) -> bytes:
    """The body of a POST, at most so many bytes. Raises Failed: 405 for another method, and what `body_of` raises."""
    if scope["method"] != "POST":
        raise Failed(405, f"{scope['path'][:200]} takes POST", allow="POST")
    return await body_of(scope, receive, most)


def listed(body: bytes) -> list[bytes]:
    """The JSON of each event of a list. Raises Refused: decode, or too_large above MAX_EVENTS.

    >>> listed(b'[{"id": 1}, 2]')
    [b'{"id": 1}', b'2']
    """
    try:
        found = _split(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("decode", f"not a list of JSON objects: {error}") from None
    if len(found) > MAX_EVENTS:
        raise Refused("too_large", f"{len(found)} events are more than {MAX_EVENTS} in one request")
    return list(map(bytes, found))


def traceparent(said: str) -> str:
    """What was said, where it is a W3C traceparent of version 00; else empty."""
    return said if W3C.fullmatch(said) else ""


def traceparent_of(scope: Scope) -> str:
    """The traceparent of a request, where it has one."""
    return next((traceparent(value.decode("latin-1")) for name, value in scope["headers"] if name == b"traceparent"), "")
