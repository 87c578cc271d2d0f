"""The gateway: one event, or tensors, over HTTP. Every refusal is a status and one sentence, `{"error": "..."}`.

POST /predict/{model}          an event; the answer is recorded on the predictions topic before it is given
GET, POST /v2/...              Open Inference Protocol v2 (tensors have no event id: their answers are not recorded)
GET /healthz /readyz /metrics /openapi.json
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from penstock.codec import MAX_BYTES, EventDecoder
from penstock.event import Event
from penstock.log import Log
from penstock.online.reader import Reading
from penstock.runtime.health import application, body_of
from penstock.runtime.lane import FROM, SEQUENCE, now
from penstock.topics import Topics

from .desk import Desk
from .duty import Duty, Follower
from .meters import Meters
from .rows import Values
from .scoring import NOBODY, Serving, score
from .sessions import Member, Sessions
from .tensors import infer_answer, infer_request, metadata

__all__ = ["Look", "gateway", "openapi"]

Look = Callable[[Event, Any], Awaitable[Mapping[str, Reading]]]
"""Reads the features of a decoded event, by view (`OnlineFeatures.row`). Raises StoreError when the store is away."""

_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_VERSION = "2"
_SOON = {"Retry-After": "1"}
_LATER = {"Retry-After": "60"}
"""A first version is fitted when enough labels have come: minutes at best."""
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def openapi() -> dict[str, Any]:
    """The gateway's OpenAPI description, as schemas/openapi.json holds it (for the example project)."""
    from penstock.artefact import Artefacts
    from penstock.log.memory import MemoryLog
    from penstock.project import load

    topics, log, meters = Topics(load("penstock.examples.flights")), MemoryLog(), Meters()
    look: Any = None  # this application only describes itself
    return gateway(topics, log, Sessions(Artefacts(Path()), meters), meters, look).openapi()


def gateway(topics: Topics, log: Log, sessions: Sessions, meters: Meters, look: Look) -> FastAPI:
    """The application. While it runs it follows who is on duty; `look` reads features from the online store."""
    follower = Follower(topics, log, sessions, meters)
    waiting = "still reading which versions are in charge"
    app = application(f"Penstock inference: {topics.project.name}", lambda: "" if follower.ready else waiting, meters.registry)
    app.version = _VERSION
    source = (FROM, f"/{topics.project.name}/gateway".encode())
    desks = {m.name: Desk(topics, m, follower.duties.of[m.name], meters) for m in topics.project.models}
    decoders = {event: EventDecoder(event) for event in {desk.model.scores for desk in desks.values()}}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(follower.run())
        yield
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    app.router.lifespan_context = lifespan

    def desk_of(model: str, version: str | None = None) -> Desk:
        if model not in desks:
            raise HTTPException(404, f"no model {model[:80]!r}; there is: {', '.join(desks) or 'none'}")
        if not follower.ready:
            raise HTTPException(503, waiting, _SOON)
        if version is not None:
            _member(desks[model].duty, version)
        return desks[model]

    @app.post("/predict/{model}", operation_id="predict", openapi_extra=_BODY)
    async def predict(model: str, request: Request) -> JSONResponse:
        """Answer one event (its JSON as on its topic). The answer is recorded on the predictions topic first.

        `features_status` says of each view that the model reads how it stands: fresh, stale (older than the view promises) or
        expired (than its ttl), newer (windows end at the entity's newest event, which lies after this one) or missing. While no
        version is in charge there is no answer, but a 503.
        """
        desk, body, began = desk_of(model), await body_of(request, MAX_BYTES), time.perf_counter()
        scores = desk.model.scores
        event = decoders[scores].decode(body, now())
        if not desk.duty.serving.members:
            raise HTTPException(503, _nobody(model), _LATER)
        readings = await look(scores, event)
        values = _values(desk, event, readings)
        entity, id_ = str(getattr(event, scores.key.name)), str(getattr(event, (scores.id or scores.key).name))
        scored = desk.score([values], [entity])
        answer = scored.answers[0]
        if answer is NOBODY:
            raise HTTPException(503, f"no version of {model} gives a probability for this event; the log says why", _LATER)
        given = request.headers.get("traceparent", "")
        trace = given if _TRACE.fullmatch(given) else ""
        moment, latency = getattr(event, scores.time.name), time.perf_counter() - began
        for record in desk.records([id_], [entity], [moment], [values], scored, latency, [trace.encode()]):
            await log.send([record._replace(headers=(*record.headers, source, (SEQUENCE, id_.encode())))])
        said = {
            "id": id_,
            "score": scored.score[0],
            "version": answer.version,
            "variant": answer.variant,
            "scores": scored.scores[0],
            "features_status": {view.name: readings[view.name].status for view in desk.model.views},
            "trace": trace[3:35],
        }
        return JSONResponse(said)

    @app.get("/v2", operation_id="server_metadata")
    @app.get("/v2/", include_in_schema=False)
    async def server() -> JSONResponse:
        """Open Inference Protocol v2: the server."""
        return JSONResponse({"name": "penstock", "version": _VERSION, "extensions": []})

    @app.get("/v2/health/live", operation_id="server_live")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready", operation_id="server_ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": follower.ready, "live": True}, 200 if follower.ready else 503)

    @app.get("/v2/models/{model}", operation_id="model_metadata")
    @app.get("/v2/models/{model}/versions/{version}", operation_id="version_metadata")
    async def described(model: str, version: str | None = None) -> JSONResponse:
        desk = desk_of(model, version)
        return JSONResponse(metadata(model, list(desk.duty.serving.members), len(desk.model.inputs)))

    @app.get("/v2/models/{model}/ready", operation_id="model_ready")
    @app.get("/v2/models/{model}/versions/{version}/ready", operation_id="version_ready")
    async def model_ready(model: str, version: str | None = None) -> JSONResponse:
        if not desk_of(model, version).duty.serving.members:
            return JSONResponse({"name": model, "ready": False, "error": _nobody(model)}, 503)
        return JSONResponse({"name": model, "ready": True})

    @app.post("/v2/models/{model}/infer", operation_id="infer", openapi_extra=_BODY)
    @app.post("/v2/models/{model}/versions/{version}/infer", operation_id="version_infer", openapi_extra=_BODY)
    async def infer(model: str, request: Request, version: str | None = None) -> JSONResponse:
        """Answer tensors. No record is made: tensors have no event id that a label could answer."""
        desk = desk_of(model, version)
        if "inference-header-content-length" in request.headers:
            raise HTTPException(400, "binary tensors are not supported: send JSON (in tritonclient, binary_data=False)")
        asked, rows = infer_request(await body_of(request, MAX_BYTES), len(desk.model.inputs))
        serving = desk.duty.serving if version is None else Serving(champion=_member(desk.duty, version))
        if not serving.members:
            raise HTTPException(503, _nobody(model), _LATER)
        scored = score(model, rows, [""] * len(rows), replace(serving, share=0.0))  # no entity, so no canary
        if NOBODY in scored.answers:
            raise HTTPException(400, "the model gives no probability for some of these rows")
        return JSONResponse(infer_answer(asked, model, version or next(iter(serving.members)), scored.score))

    return app


def _nobody(model: str) -> str:
    return f"model {model} has no version in charge yet: the first comes when enough labels have"


def _member(duty: Duty, version: str) -> Member:
    member = duty.serving.members.get(version)
    if member is None:
        served = ", ".join(duty.serving.members) or "none"
        raise HTTPException(404, f"model {duty.model.name} has no version {version[:80]!r} on duty; it has: {served}")
    return member


def _values(desk: Desk, event: Any, readings: Mapping[str, Reading]) -> Values:
    """What the model sees of an event and its features."""
    columns = {repr(column): name for name, column in desk.model.scores.columns.items()}
    known = {f"{view}.{name}": value for view, reading in readings.items() for name, value in reading.values.items()}
    found = (getattr(event, columns[name]) if name in columns else known[name] for name in desk.model.inputs)
    return tuple(None if value is None else float(value) for value in found)
