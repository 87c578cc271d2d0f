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
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.codec import MAX_BYTES, EventDecoder
from penstock.event import Event
from penstock.log import Log
from penstock.online.reader import Reading
from penstock.runtime.health import application, body_of
from penstock.runtime.lane import FROM, SEQUENCE, now
from penstock.topics import Topics

from . import described
from .desk import Desk
from .duty import Follower
from .meters import Meters
from .onduty import LATER, SOON, WAITING, OnDuty, nobody
from .protocol import Limits, OpenInference
from .rows import Values
from .scoring import NOBODY
from .sessions import Sessions
from .tally import Tallies

__all__ = ["Look", "gateway", "openapi"]

Look = Callable[[Event, Any], Awaitable[Mapping[str, Reading]]]
"""Reads the features of a decoded event, by view (`OnlineFeatures.row`). Raises StoreError when the store is away."""

_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_VERSION = "2"
_SOON, _LATER = {"Retry-After": str(SOON)}, {"Retry-After": str(LATER)}
MAX_ROWS = 1_000
"""Of one infer request."""
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
    tensors = OnDuty(topics.project.models, follower)
    meters.registry.register(
        Tallies(lambda: {f"{model}/{version}": tally for (model, version), tally in tensors.tallies().items()})
    )
    app = application(f"Penstock inference: {topics.project.name}", tensors.waiting, meters.registry)
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
    app.state.open_inference = OpenInference(tensors, Limits(MAX_BYTES, MAX_ROWS))
    app.add_middleware(_Tensors, protocol=app.state.open_inference)
    events = app.openapi

    def described_whole() -> dict[str, Any]:
        said = events()
        said["paths"] |= described.paths()
        said.setdefault("components", {}).setdefault("schemas", {}).update(described.schemas())
        return said

    app.openapi = described_whole  # type: ignore[method-assign]

    def desk_of(model: str) -> Desk:
        if model not in desks:
            raise HTTPException(404, f"no model {model[:80]!r}; there is: {', '.join(desks) or 'none'}")
        if not follower.ready:
            raise HTTPException(503, WAITING, _SOON)
        return desks[model]

    @app.post("/predict/{model}", operation_id="predict", openapi_extra=_BODY)
    async def predict(model: str, request: Request) -> JSONResponse:
        """Answer one event (its JSON as on its topic). The answer is recorded on the predictions topic first.

        `features_status` says of each view that the model reads how it stands: fresh, stale (older than the view promises) or
        expired (than its ttl), newer (windows end at the entity's newest event, which lies after this one), missing, rebuilding
        (the store has lost writes, and is not yet what it had been) or unpromised (the view promises nothing). While no version
        is in charge there is no answer, but a 503.
        """
        desk, body, began = desk_of(model), await body_of(request, MAX_BYTES), time.perf_counter()
        scores = desk.model.scores
        event = decoders[scores].decode(body, now())
        if not desk.duty.serving.members:
            raise HTTPException(503, nobody(model), _LATER)
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

    return app


class _Tensors:
    """Answers the Open Inference Protocol ahead of FastAPI, whose routing takes longer than a model does."""

    def __init__(self, app: ASGIApp, protocol: OpenInference) -> None:
        self._app, self._protocol = app, protocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tensors = scope["type"] == "http" and (scope["path"] == "/v2" or scope["path"].startswith("/v2/"))
        await (self._protocol if tensors else self._app)(scope, receive, send)


def _values(desk: Desk, event: Any, readings: Mapping[str, Reading]) -> Values:
    """What the model sees of an event and its features."""
    columns = {repr(column): name for name, column in desk.model.scores.columns.items()}
    known = {f"{view}.{name}": value for view, reading in readings.items() for name, value in reading.values.items()}
    found = (getattr(event, columns[name]) if name in columns else known[name] for name in desk.model.inputs)
    return tuple(None if value is None else float(value) for value in found)
