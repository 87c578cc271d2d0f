"""A reply over HTTP from a bare ASGI application: JSON, or a refusal in one sentence, `{"error": "..."}`, with its status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Final

import msgspec
import structlog

from penstock.errors import Refused
from penstock.log import LogError, TooLarge
from penstock.store import StoreError

from ..open_inference.batching import Overloaded
from ..open_inference.protocol import SOON, Failed, Gone, Scope, Send
from .recorder import Full

__all__ = ["refusal", "replied"]

_JSON: Final = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode
_OUR_FAULT: Final = "the server failed on this request; its log says why"


async def replied(scope: Scope, send: Send, route: str, work: Callable[[], Awaitable[tuple[int, bytes]]]) -> None:
    """Reply with the status and the JSON that `work` gives, or with what it raises. `route` is how meters name it."""
    scope["route"] = SimpleNamespace(path=route)
    headers = [_JSON]
    try:
        status, body = await work()
    except Gone:
        return
    except Exception as error:
        failed = refusal(error)
        status, body = failed.status, _encode({"error": str(failed)})
        if failed.after is not None:
            headers.append((b"retry-after", b"%d" % failed.after))
        if failed.allow:
            headers.append((b"allow", failed.allow.encode()))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def refusal(error: BaseException) -> Failed:
    """What went wrong as a status and one sentence. A fault of ours is logged, and says nothing of itself."""
    match error:
        case Failed():
            return error
        case Refused():
            return Failed(413 if error.reason == "too_large" else 400, str(error))
        case Overloaded():
            return Failed(503, "requests wait too long already; ask again", SOON)
        case Full():
            return Failed(503, str(error), SOON)
        case TooLarge():
            return Failed(413, str(error))
        case LogError():
            return Failed(503, f"Kafka does not answer: {error}", SOON)
        case StoreError():
            return Failed(503, f"the online store does not answer: {error}", SOON)
    structlog.get_logger().error("request failed", exc_info=error)
    return Failed(500, _OUR_FAULT)
