"""Answers out: scored rows as Prediction records with CloudEvents headers (binary mode, CloudEvents 1.0)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import structlog

from penstock.log import Headers, Send
from penstock.records import Prediction

from .meters import Meters
from .rows import Inputs, Values
from .scoring import Scored

__all__ = ["AnswerWriter"]

_encode = msgspec.json.Encoder().encode


class AnswerWriter:
    """Writes and counts the predictions of one model. The id of an answer is its event's; so is its key."""

    def __init__(self, topic: str, source: str, inputs: Inputs, model: str, meters: Meters) -> None:
        self._topic, self._inputs, self._model, self._meters = topic, inputs, model, meters
        self._logger = structlog.get_logger(service="inference")
        self._head: Headers = (
            ("ce_specversion", b"1.0"),
            ("ce_source", source.encode()),
            ("ce_type", b"penstock.prediction.v1"),
            ("content-type", b"application/json"),
        )

    def write(
        self,
        ids: Sequence[str],
        keys: Sequence[str],
        times: Sequence[datetime],
        values: Sequence[Values],
        scored: Scored,
        latency: float,
        traces: Sequence[bytes],
    ) -> list[Send]:
        """One record a row. `traces` are W3C traceparent headers, empty where there is none; they are passed on."""
        self._count(scored)
        topic, model, head, json = self._topic, self._model, self._head, self._inputs.json
        sends = []
        for id_, key, time, value, score, scores, answer, bucket, trace in zip(
            ids, keys, times, values, scored.score, scored.scores, scored.answers, scored.buckets, traces, strict=True
        ):
            record = Prediction(
                id=id_,
                key=key,
                model=model,
                time=time,
                inputs=json(value),
                score=score,
                scores=scores,
                weights=answer.weights,
                version=answer.version,
                variant=answer.variant,
                digest=answer.digest,
                bucket=bucket,
                latency=latency,
                trace=trace[3:35].decode("ascii", "replace"),
            )
            name = id_.encode()
            headers = (*head, ("ce_id", name), ("ce_time", _encode(time)[1:-1]))
            sends.append(Send(topic, name, _encode(record), (*headers, ("traceparent", trace)) if trace else headers))
        return sends

    def _count(self, scored: Scored) -> None:
        counts: dict[tuple[str, str], int] = {}
        for answer in scored.answers:
            kind = (answer.version, answer.variant)
            counts[kind] = counts.get(kind, 0) + 1
        for (version, variant), n in counts.items():
            self._meters.predictions.labels(self._model, version, variant).inc(n)
        for version, n in scored.failed.items():
            self._meters.failed.labels(self._model, version).inc(n)
            self._logger.error("scores failed", model=self._model, version=version, rows=n, cause=scored.causes[version])
