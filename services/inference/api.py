"""The gateway: one event, or tensors, over HTTP. Every refusal is a status and one sentence, `{"error": "..."}`.

POST /predict/{model}          an event; the answer is recorded on the predictions topic before it is given
GET, POST /v2/...              Open Inference Protocol v2 (tensors have no event id: their answers are not recorded)
GET /healthz /readyz /metrics /openapi.json
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from penstock.log import LogError
from penstock.store import StoreError
from penstock.topics import Topics

from .follower import Follower
from .guard import Guard, body_of, json, refused
from .meters import Meters
from .teller import Look, Publish, Teller
from .tensors import metadata

__all__ = ["gateway", "openapi"]

_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_VERSION = "2"
_LATER = {"Retry-After": "1"}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
_ERROR = {
    "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
}  # fmt: skip
_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for code, text in {400: "Bad input.", 404: "No such model or version.", 413: "Too large.", 503: "Not now."}.items()
}


def openapi() -> dict[str, Any]:
    """The gateway's OpenAPI description, as schemas/openapi.json holds it (for the example project)."""
    from penstock.artefact import Artefacts
    from penstock.log.memory import MemoryLog
    from penstock.project import load

    from .sessions import Sessions

    topics, log, meters = Topics(load("penstock.examples.flights")), MemoryLog(), Meters()

    async def nothing(*_: Any) -> Any:
        raise RuntimeError("this application only describes itself")

    follower = Follower(topics, log, Sessions(Artefacts(Path()), meters), meters)
    return gateway(topics, follower, meters, nothing, nothing).openapi()


def gateway(
    topics: Topics,
    follower: Follower,
    meters: Meters,
    look: Look,
    publish: Publish,
    beat: Callable[[], str] | None = None,
) -> FastAPI:
    """The application. While it runs it keeps `follower` following; `beat` says what is wrong ("" is well)."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(follower.run())
        yield
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    app = FastAPI(
        title=f"Penstock inference: {topics.project.name}", version=_VERSION, lifespan=lifespan, docs_url=None,
        redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.add_middleware(Guard, meters=meters)
    app.add_exception_handler(HTTPException, refused)
    models = {m.name: Teller(topics, m, follower.duties[m.name], look, publish, meters) for m in topics.project.models}

    def teller(model: str) -> Teller:
        if model not in models:
            raise HTTPException(404, f"no model {model[:80]!r}; there is: {', '.join(models) or 'none'}")
        if not follower.ready:
            raise HTTPException(503, "still reading which versions are in charge", {"Retry-After": "1"})
        return models[model]

    @app.post("/predict/{model}", operation_id="predict", openapi_extra=_BODY, responses=_RESPONSES)
    async def predict(model: str, request: Request) -> Response:
        """Answer one event (its JSON as on its topic). The answer is recorded on the predictions topic first."""
        told, body = teller(model), await body_of(request)
        trace = request.headers.get("traceparent", "")
        try:
            return json(await told.predict(body, trace if _TRACE.fullmatch(trace) else ""))
        except (StoreError, LogError) as error:
            raise HTTPException(503, f"not answered, because it could not be recorded or looked up: {error}", _LATER) from None

    @app.get("/v2", operation_id="server_metadata")
    @app.get("/v2/", include_in_schema=False)
    async def server() -> Response:
        """Open Inference Protocol v2: the server."""
        return json({"name": "penstock", "version": _VERSION, "extensions": []})

    @app.get("/v2/health/live", operation_id="server_live")
    async def live() -> Response:
        return json({"live": True})

    @app.get("/v2/health/ready", operation_id="server_ready")
    async def ready() -> Response:
        return json({"ready": follower.ready, "live": True}, 200 if follower.ready else 503)

    @app.get("/v2/models/{model}", operation_id="model_metadata", responses=_RESPONSES)
    @app.get("/v2/models/{model}/versions/{version}", operation_id="version_metadata", responses=_RESPONSES)
    async def described(model: str, version: str | None = None) -> Response:
        told = teller(model)
        if version is not None:
            told.member(version)
        return json(metadata(model, list(told.duty.serving.members), len(told.model.inputs)))

    @app.get("/v2/models/{model}/ready", operation_id="model_ready", responses=_RESPONSES)
    @app.get("/v2/models/{model}/versions/{version}/ready", operation_id="version_ready", responses=_RESPONSES)
    async def model_ready(model: str, version: str | None = None) -> Response:
        told = teller(model)
        if version is not None:
            told.member(version)
        if not told.duty.serving.members:
            return json({"name": model, "ready": False, "error": "no version is in charge yet"}, 503)
        return json({"name": model, "ready": True})

    @app.post("/v2/models/{model}/infer", operation_id="infer", openapi_extra=_BODY, responses=_RESPONSES)
    @app.post(
        "/v2/models/{model}/versions/{version}/infer",
        operation_id="version_infer",
        openapi_extra=_BODY,
        responses=_RESPONSES,
    )
    async def infer(model: str, request: Request, version: str | None = None) -> Response:
        """Answer tensors. No record is made: tensors have no event id that a label could answer."""
        told = teller(model)
        if "inference-header-content-length" in request.headers:
            raise HTTPException(400, "binary tensors are not supported: send JSON (in tritonclient, binary_data=False)")
        return json(told.infer(await body_of(request), version))

    @app.get("/healthz", operation_id="healthz")
    async def healthz() -> Response:
        """The process answers."""
        return json({"ok": True})

    @app.get("/readyz", operation_id="readyz", responses=_RESPONSES)
    async def readyz() -> Response:
        """It knows which versions are in charge, and is well."""
        wrong = "still reading which versions are in charge" if not follower.ready else beat() if beat else ""
        return json({"error": wrong}, 503) if wrong else json({"ok": True})

    @app.get("/metrics", operation_id="metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(generate_latest() + generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    return app
