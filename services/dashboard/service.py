"""Dashboard: one page about the whole loop, for people.

reads    <p>.statistics.<model>, <p>.alarms, <p>.runs, <p>.models    folded into a penstock.picture.Picture
         <p>.queue, <p>.reviewed                                     folded into a penstock.reviewing.panel.Panel
         the ends of all topics                                      counts, rates and lag
writes   <p>.flags, <p>.reviews    what people say on the page of reviews; nothing of itself
state    none: folded anew from the topics at every start, bounded
serves   GET /reviews, /reviews/waiting; POST /reviews/{model}, /flags/{model}
         GET /, /events (server-sent events), /picture (the same once, as JSON), /static, /healthz, /readyz, /metrics

topics -> Lookout (once a second, for all who look) -> shown -> /events -> static/app.js
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.staticfiles import StaticFiles

from penstock.log import Log
from penstock.runtime.health import application
from penstock.topics import Topics

from .headers import Sealed
from .lookout import Lookout
from .page import page
from .reviews import routes

__all__ = ["app"]

MOST_VIEWERS = 100
"""Browsers that may follow at once; each holds a connection."""
FRESH = {"cache-control": "no-store"}
STATIC = Path(__file__).parent / "static"


def app(topics: Topics, log: Log, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """The page over a log. It begins to read when the application starts (lifespan) and stops with it."""
    lookout = Lookout(topics, log, clock)
    made = application(f"Penstock dashboard: {topics.project.name}", lookout.missing)
    made.router.lifespan_context = lookout.lifespan
    made.add_middleware(Sealed)
    made.include_router(routes(topics, log, lookout.panel))
    made.mount("/static", StaticFiles(directory=STATIC), name="static")

    @made.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        """The page."""
        return HTMLResponse(page(topics, lookout.flow()), headers=FRESH)

    @made.get("/events", operation_id="events", tags=["dashboard"])
    async def events() -> StreamingResponse:
        """The picture as server-sent events, once a second: `picture` in full when something happened, else `flow`."""
        if lookout.viewers >= MOST_VIEWERS:
            raise HTTPException(503, f"{MOST_VIEWERS} browsers look at this already: close one, or ask /picture now and then")
        return StreamingResponse(lookout.stream(), media_type="text/event-stream", headers={**FRESH, "x-accel-buffering": "no"})

    @made.get("/picture", operation_id="picture", tags=["dashboard"])
    async def picture() -> Response:
        """Everything that the page shows, as JSON."""
        if not lookout.number:
            raise HTTPException(503, lookout.missing())
        return Response(lookout.message(), media_type="application/json", headers=FRESH)

    return made
