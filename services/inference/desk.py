"""A desk: one model at work. Values of inputs in, `Prediction` records out; the stream and HTTP both ask here.

values -> matrix -> score (by who is on duty) -> records with CloudEvents headers (binary mode, CloudEvents 1.0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog

from penstock.log import Headers, Send
from penstock.model import Model
from penstock.records import Prediction
from penstock.scoring.answers import Scored, score
from penstock.topics import Topics

from .duty import Duty
from .meters import Meters
from .rows import Values, matrix

__all__ = ["Desk"]

_encode = msgspec.json.Encoder().encode


class Desk:
    """Answers rows of one model with the versions that `duty` says, counts the answers, and writes them down."""

    def __init__(self, topics: Topics, model: Model, duty: Duty, meters: Meters) -> None:
        self.model, self.duty, self._meters = model, duty, meters
        meters.known(model.name)
        fields: list[Any] = [(f"i{n}", float | None) for n in range(len(model.inputs))]
        rename = {f"i{n}": name for n, name in enumerate(model.inputs)}
        self._inputs: Any = msgspec.defstruct("Inputs", fields, rename=rename, gc=False)
        self._topic = topics.predictions(model.name)
        self._head: Headers = (
            ("ce_specversion", b"1.0"),
            ("ce_type", b"penstock.prediction.v1"),
            ("content-type", b"application/json"),
        )
        self._logger = structlog.get_logger(service="inference")

    def score(self, values: Sequence[Values], entities: Sequence[str]) -> Scored:
        """The answers to rows of `values`, in the model's order of inputs, about `entities`."""
        model = self.model.name
        scored = score(model, matrix(values, len(self.model.inputs)), entities, self.duty.serving)
        for variant, n in Counter(a.variant for a in scored.answers).items():
            self._meters.predictions.labels(model, variant).inc(n)
        for version, n in scored.failed.items():
            self._meters.failed.labels(model).inc(n)
            self._logger.error("scores failed", model=model, version=version, rows=n, cause=scored.causes[version])
        return scored

    def records(
        self,
        ids: Sequence[str],
        keys: Sequence[str],
        times: Sequence[datetime],
        values: Sequence[Values],
        scored: Scored,
        latency: float,
        traces: Sequence[bytes],
        segments: Sequence[dict[str, str]] = (),
    ) -> list[Send]:
        """One record a row, keyed by the id of its event; who sends it adds CloudEvents' source and id. `traces` are W3C
        traceparent headers (empty: none) and passed on; `segments` has the levels of each, nothing where none are declared."""
        topic, model, head, inputs = self._topic, self.model.name, self._head, self._inputs
        sends, many = [], scored.named
        levels: Sequence[Any] = segments or [msgspec.UNSET] * len(ids)
        for at, (id_, key, time, value, served, scores, answer, bucket, trace, level) in enumerate(
            zip(
                ids,
                keys,
                times,
                values,
                scored.score,
                scored.scores,
                scored.answers,
                scored.buckets,
                traces,
                levels,
                strict=True,
            )
        ):
            record = Prediction(
                id=id_,
                key=key,
                model=model,
                time=time,
                inputs=msgspec.Raw(_encode(inputs(*value))),
                score=served,
                scores=scores,
                weights=answer.weights,
                version=answer.version,
                variant=answer.variant,
                digest=answer.digest,
                bucket=bucket,
                latency=latency,
                trace=trace[3:35].decode("ascii", "replace"),
                segments=level,
            )
            if many:
                record = msgspec.structs.replace(record, answer=many[at], probabilities=scored.probabilities[at])
            sends.append(Send(topic, id_.encode(), _encode(record), (*head, ("traceparent", trace)) if trace else head))
        return sends
