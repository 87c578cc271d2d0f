"""Reviews: the page on which people say what is true of answers that wait, and what it shows.

A browser sends what is said as JSON by a script of this page. No other page can have it do so: JSON is not what a form sends, a
browser says where a request comes from (Sec-Fetch-Site), and a key, where one is asked for, is typed into this page and goes
along in a header, never by itself (the door takes what a browser remembers for reading only).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from penstock.errors import Refused
from penstock.event import from_micros
from penstock.log import Log
from penstock.records import Queued
from penstock.reviewing.feedback import LONGEST, Kind, feedback, said_of
from penstock.reviewing.panel import Panel
from penstock.runtime.refusals import Failed
from penstock.statistics.agreement import Agreement
from penstock.topics import Topics

__all__ = ["routes"]

SHOWN: Final = 50
"""Answers of a model on the page, the most useful; the next ones follow when these are decided."""
FRESH: Final = {"cache-control": "no-store"}
PAGE: Final = Template((Path(__file__).parent / "templates" / "reviews.html").read_text(encoding="utf-8"))


class Waiting(msgspec.Struct, frozen=True):
    """What the page shows of a model."""

    name: str
    column: str
    """The label that is asked for."""
    task: str
    """binary, regression or multiclass."""
    classes: Sequence[str]
    waiting: int
    shown: list[Queued]
    ends: Mapping[str, int]
    agreement: Agreement


def routes(topics: Topics, log: Log, panel: Panel) -> APIRouter:
    """The page and what is said on it."""
    router = APIRouter(include_in_schema=False)

    @router.get("/reviews")
    async def page(request: Request) -> HTMLResponse:
        named = request.scope.get("principal") is not None
        return HTMLResponse(
            PAGE.substitute(
                project=escape(topics.project.name),
                keyed="" if named else " hidden",
                unkeyed=" hidden" if named else "",
                none="" if not topics.reviewing else " hidden",
            ),
            headers=FRESH,
        )

    @router.get("/reviews/waiting")
    async def waiting(request: Request, by: str = "") -> Response:
        """What `by` may decide (a key: who it belongs to), and how far reviewers agree."""
        found = [_waiting(topics, panel, name.name, _speaker(request) or by) for name in topics.reviewing]
        return Response(msgspec.json.encode(found), media_type="application/json", headers=FRESH)

    @router.post("/reviews/{model}")
    async def decide(model: str, request: Request) -> Response:
        return await _hear("reviews", model, request)

    @router.post("/flags/{model}")
    async def flag(model: str, request: Request) -> Response:
        return await _hear("flags", model, request)

    async def _hear(kind: Kind, model: str, request: Request) -> Response:
        _from_here(request)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST:
                raise Failed(413, f"what is said is longer than {LONGEST} bytes")
        said = said_of(bytes(body), _speaker(request))
        record = feedback(topics, kind, model, said, from_micros(round(time.time() * 1e6)))
        if kind == "reviews" and (queued := panel.find(model, said.prediction)) is not None and said.by in queued.not_for:
            raise Refused("schema", f"{said.by} has flagged or decided {said.prediction} already: another person decides")
        await log.send([record])
        told = {"prediction": said.prediction, "model": model, "by": said.by}
        return Response(msgspec.json.encode(told), 202, media_type="application/json", headers=FRESH)

    return router


def _waiting(topics: Topics, panel: Panel, name: str, by: str) -> Waiting:
    found, label = panel.waiting(name, by), topics.project.model(name).label
    shown, ends = found[:SHOWN], panel.ends[name]
    return Waiting(name, label.column.name, label.task, label.classes, len(found), shown, ends, panel.agreement(name))


def _speaker(request: Request) -> str:
    """Who asks, as the door knows; empty where there is none."""
    principal: Any = request.scope.get("principal")
    return "" if principal is None else str(principal.name)


def _from_here(request: Request) -> None:
    """Raises Failed for what a page from elsewhere could have a browser send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Failed(415, "send JSON, and say so: content-type: application/json")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Failed(403, "a page from elsewhere may not send anything here")
