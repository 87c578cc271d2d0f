"""Reading features over HTTP: GET /features/{view}/{key}."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from penstock.codec import FUTURE_MICROS
from penstock.event import EPOCH, from_micros, to_micros
from penstock.health import application
from penstock.online import OnlineFeatures

__all__ = ["app"]


def app(online: OnlineFeatures, views: list[str], ready: Callable[[], str]) -> FastAPI:
    """The read service of the feature store."""
    made = application("penstock feature store", ready)

    @made.get("/features/{view}/{key:path}", operation_id="read_features", tags=["features"])
    async def read(view: str, key: str, at: datetime | None = None) -> JSONResponse:
        """One view of one entity, at a moment (default: now). A compound key is a JSON array.

        `as_of` is when the windows end. `status` is fresh, newer (no moment was asked for, and the entity's newest event lies
        ahead of this clock) or missing (nothing is known of the entity). A moment before the entity's newest event is refused.
        """
        now = to_micros(datetime.now(UTC))
        if at is not None and at.tzinfo is None:
            raise HTTPException(400, "`at` needs a time zone: write 2013-02-01T12:00:00Z")
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
        return JSONResponse({"view": view, "key": key, "as_of": as_of, "status": found.status, "features": found.values})

    return made
