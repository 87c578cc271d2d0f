"""The gateway: one event or many, or tensors, over HTTP. Every refusal is a status and one sentence, `{"error": "..."}`.

POST /predict/{model}          events; an answer leaves when its record is in the log, or safe in a spill (`predict`)
POST /events/{event}           events to be published: CloudEvents, or bare JSON (`ingest`)
POST /flags, /reviews/{model}  what people say of answers (`hearing`)
GET, POST /v2/...              Open Inference Protocol v2; its answers are recorded as well (`inferences`)
GET /healthz /readyz /metrics /openapi.json
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI

from penstock.codec import MAX_BYTES
from penstock.log import Log
from penstock.publish import sampled
from penstock.runtime.health import application
from penstock.runtime.telemetry import Tracing, trace_of
from penstock.topics import Topics

from ..desk import Desk
from ..duty import Follower
from ..explainers import Explainers
from ..meters import Meters
from ..open_inference.protocol import Limits, OpenInference
from ..open_inference.tally import Tallies
from ..sessions import Sessions
from . import ingest, manual
from .hearing import Hearing
from .inferences import Inferences
from .ingest import Ingest
from .onduty import OnDuty
from .predict import Predict
from .predictor import Look, Predictor
from .recorder import Recorder
from .spill import Spill

__all__ = ["Look", "gateway", "openapi"]

_VERSION = "3"
MAX_ROWS = 1_000
"""Of one infer request."""


def openapi() -> dict[str, Any]:
    """The gateway's OpenAPI description, as schemas/openapi.json holds it (for the example project)."""
    from penstock.artefact import Artefacts
    from penstock.log.memory import MemoryLog
    from penstock.project import load

    topics, log, meters = Topics(load("penstock.examples.flights")), MemoryLog(), Meters()
    look: Any = None  # this application only describes itself
    return gateway(topics, log, Sessions(Artefacts(Path()), meters), meters, look).openapi()


def gateway(
    topics: Topics,
    log: Log,
    sessions: Sessions,
    meters: Meters,
    look: Look,
    spill: Spill | None = None,
    demanding: bool = False,
    tracing: Tracing | None = None,
    share: float = 0.0,
    warming: Callable[[], str] = str,
    recorded: float = 1.0,
) -> FastAPI:
    """The application. While it runs it follows who is on duty; `look` reads features from the online store.

    Without a `spill` it is strict: what the log does not take is not answered. `demanding`: nor is what `look` cannot read. A
    `share` of the events that come without a traceparent begin a trace. `warming` says what `look` is not ready for yet. Of the
    answers to tensors the share `recorded` is recorded.
    """
    follower, source = Follower(topics, log, sessions, meters), f"/{topics.project.name}/gateway".encode()
    models = topics.project.models
    kept = [*(topics.predictions(model.name) for model in models), *([topics.inferences] if models else [])]
    answers = Recorder(log, kept, meters, spill, source)
    inferences = Inferences(topics.inferences, answers, source, recorded)
    events = Recorder(log, [event.topic for event in topics.project.events], meters, patience=ingest.PATIENCE)
    tensors = OnDuty(topics.project, follower)
    meters.registry.register(
        Tallies(lambda: {f"{model}/{version}": tally for (model, version), tally in tensors.tallies().items()})
    )
    desks = [Desk(topics, model, follower.duties.of[model.name], meters) for model in models]
    explainers = Explainers(sessions.artefacts)
    predictors = {desk.model.name: Predictor(desk, look, answers, source, meters, explainers, demanding) for desk in desks}

    failed: list[str] = []

    def ended(what: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            structlog.get_logger(service="inference").error("a part of the gateway has failed", part=what, exc_info=error)
            failed.append(what)

    def waiting() -> str:
        if failed:
            return "; ".join(f"it no longer {what}; the log says why" for what in failed)
        return warming() or tensors.waiting() or ("" if answers.ready else "still asking Kafka where its topics end")

    app = application(f"Penstock inference: {topics.project.name}", waiting, meters.registry)
    app.version = _VERSION

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "follows who is on duty": follower.run,
            "records answers": answers.run,
            "publishes events": events.run,
            "opens its functions": partial(asyncio.to_thread, tensors.open),
        }
        running = [asyncio.create_task(work()) for work in parts.values()]
        for what, task in zip(parts, running, strict=True):
            task.add_done_callback(partial(ended, what))
        yield
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await asyncio.to_thread(tensors.close)

    app.router.lifespan_context = lifespan
    app.state.open_inference = OpenInference(tensors, Limits(MAX_BYTES, MAX_ROWS), record=inferences.record)
    answering = Predict(predictors, lambda: follower.ready and answers.ready, _traced(topics, tracing, share))
    hearing = {"flags": Hearing("flags", topics, events), "reviews": Hearing("reviews", topics, events)}
    app.put_ahead(v2=app.state.open_inference, predict=answering, events=Ingest(topics, events), **hearing)
    manual.describe(app, topics.project)
    return app


def _traced(topics: Topics, tracing: Tracing | None, share: float) -> Callable[[str, str, str], str]:
    """One span for each answer whose trace is sampled; without a collector traces are passed on as they came."""
    if tracing is None or not tracing.on:
        return lambda given, _name, _model: given
    begin, spans = sampled(share), tracing

    def traced(given: str, name: str, model: str) -> str:
        if given:
            known = trace_of((("traceparent", given.encode()),))
            return spans.record(known, "process", topics.predictions(model)) if known else given
        begun = begin(f"{topics.prefix}/gateway/{name}") or ""
        if begun:
            spans.start(begun, "process", topics.predictions(model))
        return begun

    return traced
