"""Answers requests about one model: what differs from the stream is only where the row comes from."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException

from penstock import log
from penstock.codec import EventDecoder
from penstock.event import Event
from penstock.lane import now
from penstock.model import Model
from penstock.topics import Topics

from .answers import AnswerWriter
from .duty import Duty
from .meters import Meters
from .rows import Inputs, Values, matrix
from .scoring import Serving, score
from .sessions import Member
from .tensors import infer_answer, infer_request

__all__ = ["Look", "Publish", "Teller"]

Looked = tuple[Sequence[str], Sequence[float | None], Mapping[str, list[int]]]
Look = Callable[[Event, Any], Awaitable[Looked]]
"""Reads the features of a decoded event (`codec.EventDecoder`): names, values, and the cursor, which is empty when
nothing is known of any of its entities. Raises StoreError when the online store is away."""
Publish = Callable[[log.Send], Awaitable[None]]


class Teller:
    """One model behind HTTP: `duty` says who answers, `look` finds features, `publish` records what was answered."""

    def __init__(self, topics: Topics, model: Model, duty: Duty, look: Look, publish: Publish, meters: Meters) -> None:
        self.model, self.duty, self._look, self._publish = model, duty, look, publish
        self._decoder = EventDecoder(model.scores)
        self._columns = {repr(column): name for name, column in model.scores.columns.items()}
        source = f"/{topics.project.name}/inference"
        self._writer = AnswerWriter(topics.predictions(model.name), source, Inputs(model), model.name, meters)

    async def predict(self, body: bytes, trace: str) -> dict[str, Any]:
        began = time.perf_counter()
        event = self._decoder.decode(body, now())
        names, found, cursor = await self._look(self.model.scores, event)
        values = self._values(event, dict(zip(names, found, strict=True)))
        known = self.model.scores
        entity, id_ = str(getattr(event, known.key.name)), str(getattr(event, (known.id or known.key).name))
        scored = score(self.model.name, matrix([values], len(values)), [entity], self.duty.serving)
        moment = getattr(event, known.time.name)
        latency = time.perf_counter() - began
        for record in self._writer.write([id_], [entity], [moment], [values], scored, latency, [trace.encode()]):
            await self._publish(record)
        answer = scored.answers[0]
        return {
            "id": id_,
            "score": scored.score[0],
            "version": answer.version,
            "variant": answer.variant,
            "scores": scored.scores[0],
            "features_status": "fresh" if cursor else "missing",
            "trace": trace[3:35],
        }

    def _values(self, event: Any, features: Mapping[str, float | None]) -> Values:
        found = []
        for name in self.model.inputs:
            column = self._columns.get(name)
            value = features.get(name) if column is None else getattr(event, column)
            found.append(None if value is None else float(value))
        return tuple(found)

    def infer(self, body: bytes, version: str | None) -> dict[str, Any]:
        serving = self.duty.serving
        if version is not None:
            serving = Serving(champion=self.member(version))
        asked, rows = infer_request(body, len(self.model.inputs))
        if not serving.members:
            raise HTTPException(503, f"model {self.model.name} has no version in charge yet")
        scored = score(self.model.name, rows, [""] * len(rows), replace(serving, share=0.0))  # no entity, so no canary
        if any(answer.version == "none" for answer in scored.answers):
            raise HTTPException(400, "the model gives no probability for some of these rows")
        return infer_answer(asked, self.model.name, version or next(iter(serving.members)), scored.score)

    def member(self, version: str) -> Member:
        member = self.duty.serving.members.get(version)
        if member is None:
            served = ", ".join(self.duty.serving.members) or "none"
            raise HTTPException(404, f"model {self.model.name} has no version {version!r} on duty; it has: {served}")
        return member
