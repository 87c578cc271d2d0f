"""Reading features over HTTP.

GET  /features/{view}/{key}    one view of one entity
POST /features                 views, features or a model for up to 10,000 keys, as JSON or as an Arrow stream
GET  /generation               which definitions these are, and which are in charge
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import fastapi
import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from penstock.codec import FUTURE_MICROS
from penstock.errors import Refused
from penstock.event import EPOCH, from_micros, to_micros
from penstock.online.query import ARROW, MAX_BODY, MAX_KEYS, Answer, Query, query_of, stream_of
from penstock.online.reader import OnlineFeatures, moments
from penstock.runtime.asgi import body_of
from penstock.runtime.health import application

__all__ = ["app", "openapi"]

_encode = msgspec.json.Encoder().encode
_QUERY: dict[str, Any] = {"views": ["Origin"], "keys": ["JFK", "LGA"]}
_FOUND: dict[str, Any] = {
    "features": {"Origin.flights_1h": [12.0, None]},
    "views": {
        "Origin": {
            "status": ["fresh", "missing"],
            "age": [30.5, None],
            "as_of": ["2026-01-02T12:00:00Z", "2026-01-02T12:00:00Z"],
        }
    },
}
_ONE: dict[str, Any] = {
    "view": "Origin", "key": "JFK", "as_of": "2026-01-02T12:00:00+00:00", "status": "fresh", "age": 30.5,
    "features": {"flights_1h": 12.0},
}  # fmt: skip
_BOTH: dict[str, Any] = {"generation": "4c9e1f2a", "in_charge": "4c9e1f2a"}
_READ: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": _ONE}}}}

OTHER: Final = "penstock-in-charge"
"""The header of answers from definitions that are not in charge: the generation that is."""


class Generation(msgspec.Struct):
    """Which definitions of the views answer here, and which are in charge: whose rows are the rows."""

    generation: str = ""
    in_charge: str = ""


def openapi() -> dict[str, Any]:
    """The OpenAPI description, as schemas/openapi.features.json holds it."""
    online: Any = None  # this application only describes itself
    return app(online, [], str).openapi()


def app(
    online: OnlineFeatures,
    views: list[str],
    ready: Callable[[], str],
    stands: Callable[[], Generation] = Generation,
    waiting: Callable[[], str] = str,
) -> FastAPI:
    """The read service of the feature store."""
    made = application("penstock feature store", ready, waiting=waiting)
    schemas, components = msgspec.json.schema_components((Query, Answer, Generation), ref_template="#/components/schemas/{name}")

    def headers() -> dict[str, str] | None:
        return None if (said := stands()).generation == said.in_charge else {OTHER: said.in_charge}

    plain = made.openapi

    def openapi() -> dict[str, Any]:
        said = plain()
        said.setdefault("components", {}).setdefault("schemas", {}).update(components)
        return said

    made.openapi = openapi  # type: ignore[method-assign]

    @made.get(
        "/features/{view}/{key:path}",
        operation_id="read_features",
        tags=["features"],
        responses=_READ,
        summary="One view of one entity",
    )
    async def read(
        view: Annotated[str, fastapi.Path(description="The view's name.", examples=["Origin"])],
        key: Annotated[str, fastapi.Path(description="The entity; several columns as a JSON array.", examples=["JFK"])],
        at: Annotated[datetime | None, fastapi.Query(description="The moment, with its time zone. Default: now.")] = None,
    ) -> JSONResponse:
        """One view of one entity, at a moment (default: now). A compound key is a JSON array.

        `as_of` is when the windows end, `age` the seconds from the view's newest event to then (null: there was none). `status`
        is fresh, stale (older than the view promises), unpromised (the view promises nothing: look at the age), expired (older
        than its ttl: the view has forgotten the entity), newer (no moment was asked for, and the entity's newest event lies ahead
        of this clock), missing (nothing is known of the entity) or rebuilding (the store has lost writes: values are older than
        they were). A moment before the entity's newest event is refused. Where another generation of the views is in charge, the
        header `penstock-in-charge` names it.
        """
        if at is not None and at.tzinfo is None:
            raise HTTPException(400, "`at` needs a time zone: write 2013-02-01T12:00:00Z")
        now = to_micros(datetime.now(UTC))
        moment = now if at is None else to_micros(at)
        if not to_micros(EPOCH) <= moment <= now + FUTURE_MICROS:
            raise HTTPException(400, "`at` lies before 1970 or more than 5 minutes in the future")
        try:
            found = await online.view(view, key, moment)
        except KeyError:
            raise HTTPException(404, f"no view {view[:80]!r}; there are: {', '.join(views)}") from None
        as_of = from_micros(found.as_of).isoformat()
        if at is not None and found.as_of > moment:
            raise HTTPException(
                409,
                f"{view} of {key[:80]!r} is kept as of its newest event, {as_of}, and no earlier: ask for then or later, or find "
                "the past in the offline tables, or replay it with `penstock simulate`",
            )
        said = {"view": view, "key": key, "as_of": as_of, "status": found.status, "age": found.age, "features": found.values}
        return JSONResponse(said, headers=headers())

    asked = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schemas[0], "example": _QUERY}}},
        "responses": {
            "200": {
                "description": "A row for each key, in order, as columns.",
                "content": {
                    "application/json": {"schema": schemas[1], "example": _FOUND},
                    ARROW: {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
    }

    @made.post(
        "/features",
        operation_id="query_features",
        tags=["features"],
        openapi_extra=asked,
        summary="Views, features or a model of many keys",
    )
    async def query(request: Request) -> Response:
        """Views, features or a model, for up to 10,000 keys at once: a row for each key, in order, whether anything is known of
        it or not. With `Accept: application/vnd.apache.arrow.stream` one Arrow batch: a float64 column for each value, and
        `<view>:status`, `<view>:newest`, `<view>:as_of` of each view.

        Nothing is refused for being older than an entity's newest event: that view's status is `newer`, and `as_of` says when its
        windows end. When the store does not answer within 3 seconds, this does: 503.
        """
        asked = query_of(await body_of(request.scope, request.receive, MAX_BODY))
        n = max(map(len, asked.keys.values()), default=0) if isinstance(asked.keys, dict) else len(asked.keys)
        if n > MAX_KEYS:
            raise HTTPException(413, f"{n:,} keys; one read takes at most {MAX_KEYS:,}: ask in parts")
        times = moments(asked.at, n)
        if n and times.max() > to_micros(datetime.now(UTC)) + FUTURE_MICROS:
            raise HTTPException(400, "`at` lies more than 5 minutes in the future")
        try:
            found = await online.read(asked.what, asked.keys, times)
        except Refused as refusal:
            raise HTTPException(404 if refusal.reason == "unknown" else 400, str(refusal)) from None
        if ARROW in request.headers.get("accept", ""):
            return Response(stream_of(found), media_type=ARROW, headers=headers())
        return Response(_encode(found.to_dict()), media_type="application/json", headers=headers())

    answered = {
        "responses": {"200": {"description": "Both.", "content": {"application/json": {"schema": schemas[2], "example": _BOTH}}}}
    }

    @made.get(
        "/generation",
        operation_id="generation",
        tags=["features"],
        openapi_extra=answered,
        summary="Which definitions answer here",
    )
    async def generation() -> Response:
        """Which definitions of the views answer here, and which are in charge: others after a swap, until this process is started
        with the project file of those."""
        return Response(_encode(stands()), media_type="application/json")

    return made
