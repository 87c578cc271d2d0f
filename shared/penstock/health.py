"""/healthz, /readyz and /metrics, the same on every service.

Alive means that the process answers; it never looks at Kafka or Redis, or one broker hiccup would restart the whole fleet.
Ready means that it does its work now. Metrics are prometheus_client's, counted per batch.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

__all__ = ["application"]


def application(title: str, ready: Callable[[], str]) -> FastAPI:
    """A FastAPI application with the health routes. `ready` says in words what is missing; empty: nothing."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.get("/healthz", operation_id="healthz", tags=["health"])
    async def healthz() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/readyz", operation_id="readyz", tags=["health"])
    async def readyz() -> Response:
        """It does its work; 503 says what is missing."""
        missing = ready()
        return JSONResponse({"ready": not missing, "missing": missing}, 503 if missing else 200)

    @app.get("/metrics", operation_id="metrics", tags=["health"])
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
