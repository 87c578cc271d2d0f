"""A reply over HTTP from a bare ASGI application: JSON, or a refusal in one sentence, `{"error": "..."}`, with its status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from penstock.runtime.asgi import Scope, Send, answer, refuse
from penstock.runtime.refusals import refusal

__all__ = ["replied"]


async def replied(scope: Scope, send: Send, route: str, work: Callable[[], Awaitable[tuple[int, bytes]]]) -> None:
    """Reply with the status and the JSON that `work` gives, or with what it raises. `route` is how meters name it."""
    scope["route"] = SimpleNamespace(path=route)
    try:
        status, body = await work()
    except Exception as error:
        await refuse(scope, send, refusal(error))
    else:
        await answer(scope, send, status, body)
