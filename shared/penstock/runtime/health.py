"""The HTTP side that all services share: /healthz, /readyz, /metrics, and one form for every error.

Alive means that the process answers; it never looks at Kafka or Redis, or one broker hiccup would restart the whole fleet.
Ready means that it does its work now. Every refusal is a status and one sentence, `{"error": "..."}`, whoever raised it; a
traceback goes to the log, never out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..doors.described import secured
from ..errors import Refused
from ..log import LogError
from ..store import StoreError
from .documentation import page
from .refusals import Failed, refusal

__all__ = ["Application", "application"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
_ERROR: dict[str, Any] = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Refused, in one sentence: 400 bad input, 404 no such thing, 413 too large, 503 not now.",
        "content": {"application/json": {"schema": _ERROR}},
    }
}

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'penstock_http_requests_total{route="/healthz",status="200"} 1.0\n',
            }
        }
    }
}


def application(
    title: str, ready: Callable[[], str], *meters: CollectorRegistry, waiting: Callable[[], str] = lambda: ""
) -> Application:
    """A FastAPI application with the health routes. `ready` says in words what is missing; empty: nothing. `waiting` says what it
    waits for and cannot mend, such as a broker that is away: it is ready all the same, or it would be sent no more questions that
    it can answer.

    /metrics shows the process's own registry, what was asked of this application, and `meters`.
    """
    requests = CollectorRegistry()
    app = Application(title=title, docs_url=None, redoc_url=None, redirect_slashes=False, responses=_RESPONSES)
    app.tally = _Tally(requests)
    app.add_middleware(_Guard, tally=app.tally)
    for kind in (HTTPException, RequestValidationError, Failed, Refused, StoreError, LogError):
        app.add_exception_handler(kind, _refused)

    @app.get(
        "/healthz", operation_id="healthz", tags=["health"], summary="Does the process answer?", responses=_like({"live": True})
    )
    async def healthz() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/readyz", operation_id="readyz", tags=["health"], summary="Does it do its work?", responses=_like({"ready": True}))
    async def readyz() -> dict[str, Any]:
        """It does its work; 503 says what is missing. Where it waits for Kafka or the online store, `waiting` says so."""
        if missing := ready():
            raise HTTPException(503, missing)
        return {"ready": True, "waiting": cause} if (cause := waiting()) else {"ready": True}

    @app.get(
        "/metrics",
        operation_id="metrics",
        tags=["health"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses=_METRICS,
    )
    async def metrics() -> Response:
        """Prometheus text format."""
        shown = (generate_latest(registry) for registry in (REGISTRY, requests, *meters))
        return Response(b"".join(shown), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    @app.get("/docs/{name}", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """Everything that can be asked, to be tried."""
        if (found := page(request.url.path)) is None:
            raise HTTPException(404, "there is nothing of that name below /docs")
        answer = Response(found.body)
        answer.raw_headers = found.headers
        return answer

    return app


class Application(FastAPI):
    """FastAPI behind bare applications, for what is asked so often that its way to a route would take longer than the answer."""

    tally: _Tally
    _ahead: Mapping[str, ASGIApp] = MappingProxyType({})

    def put_ahead(self, **applications: ASGIApp) -> None:
        """Have paths that begin with /<name> answered by these, counted and guarded as all others."""
        self._ahead = {name: _Guard(application, self.tally, f"/{name}") for name, application in applications.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (ahead := self._ahead.get(scope["path"][1:].partition("/")[0])) is not None:
            await ahead(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        return secured(super().openapi())


def _like(example: Any) -> dict[int | str, dict[str, Any]]:
    """An example of the answer, for the description."""
    return {200: {"content": {"application/json": {"example": example}}}}


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """What went wrong as a status and one sentence."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        failed = Failed(400, f"{first['loc'][-1]}: {first['msg']}")
    else:
        failed = refusal(error)
    return JSONResponse({"error": str(failed)}, failed.status, failed.headers)


class _Tally:
    """How many requests there were, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter("penstock_http_requests_total", "HTTP requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "penstock_http_seconds", "Seconds to answer a request.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._of: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        """Found once: to ask for a label costs more than to count."""

    def note(self, route: str, status: int, seconds: float) -> None:
        found = self._of.get((route, status))
        if found is None:
            found = self._of[route, status] = self._requests.labels(route, str(status)), self._seconds.labels(route)
        found[0].inc()
        found[1].observe(seconds)


class _Guard:
    """Counts requests, and answers what no handler caught. `route` is how those are counted that name none."""

    def __init__(self, app: ASGIApp, tally: _Tally, route: str = "other") -> None:
        self._app, self._tally, self._route = app, tally, route

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
        except Exception as error:  # a fault of ours, whatever it is
            refused = await _refused(Request(scope), error)
            if status:
                raise
            await refused(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", self._route)
            self._tally.note(route, status, time.perf_counter() - began)
