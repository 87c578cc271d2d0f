"""What stands between handlers and the network: bounded bodies, one-sentence refusals, counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.errors import Refused

from .meters import Meters

__all__ = ["BODY_BYTES", "Guard", "body_of", "json", "refused"]

BODY_BYTES = 1 << 20
"""Larger bodies are refused: an event has at most as much on its topic, too."""

_STATUS = {"too_large": 413}
_encode = msgspec.json.Encoder().encode


def json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_encode(body), status, headers, media_type="application/json")


async def body_of(request: Request) -> bytes:
    """The body, read no further than it may be long."""
    found = bytearray()
    try:
        async for chunk in request.stream():
            found += chunk
            if len(found) > BODY_BYTES:
                raise HTTPException(413, f"the body is longer than {BODY_BYTES} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the connection closed before the body was whole") from None
    return bytes(found)


def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json({"error": str(error.detail)}, error.status_code, error.headers)


class Guard:
    """Counts requests, and turns what a handler raises into one sentence: a traceback goes to the log, never out."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters
        self._logger = structlog.get_logger(service="inference")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if status:
                raise
            await self._answer(error)(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._meters.requests.labels(route, str(status)).inc()
            self._meters.seconds.labels(route).observe(time.perf_counter() - began)

    def _answer(self, error: Exception) -> Response:
        if isinstance(error, Refused):
            return json({"error": str(error)}, _STATUS.get(error.reason, 400))
        self._logger.error("request failed", exc_info=error)
        return json({"error": "the server failed on this request; its log says why"}, 500)
