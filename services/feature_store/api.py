"""Reading features over HTTP: GET /features/{view}/{key}."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from penstock.event import from_micros, to_micros
from penstock.health import application
from penstock.online import OnlineFeatures
from penstock.store import StoreError

__all__ = ["app"]


def app(online: OnlineFeatures, views: list[str], ready: Callable[[], str]) -> FastAPI:
    """The read service of the feature store."""
    made = application("penstock feature store", ready)

    @made.get("/features/{view}/{key}", operation_id="read_features", tags=["features"])
    async def read(view: str, key: str, at: datetime | None = None) -> JSONResponse:
        """The windows of one view for one entity, at a moment (default: now). A compound key is a JSON array."""
        if at is not None and at.tzinfo is None:
            return JSONResponse({"error": "`at` needs a time zone: write 2013-02-01T12:00:00Z"}, 400)
        moment = to_micros(at or datetime.now(UTC))
        try:
            values: dict[str, Any] = await online.view(view, key, moment)
        except KeyError:
            return JSONResponse({"error": f"no view {view!r}; there are {', '.join(views)}"}, 404)
        except StoreError as error:
            return JSONResponse({"error": f"the online store does not answer: {error}"}, 503)
        return JSONResponse({"view": view, "key": key, "at": from_micros(moment).isoformat(), "features": values})

    return made
