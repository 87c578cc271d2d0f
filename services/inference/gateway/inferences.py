"""Answers to tensors as records: on `<p>.inferences`, safe like the answers of /predict before anyone has them.

Tensors have no event that a label could answer, so these are for looking back: who asked what, which version answered what. An
id of the request is kept, as far as anybody reads; the record's own (`ce_id`) is the process's birth and a number, so that each
answer is one record, and a replay of the spill recognises it. Values are bounded: of many rows the first are written down, and
how many there were.
"""

from __future__ import annotations

import itertools
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from penstock.log import Headers, Send
from penstock.records import Inference, Tensor
from penstock.runtime.outbox import FROM, SEQUENCE

from ..open_inference.datatypes import Array, to_json
from ..open_inference.protocol import Version
from ..open_inference.tensors import Asked
from .recorder import Recorder
from .requests import traceparent

__all__ = ["Inferences"]

VALUES: Final = 4_096
"""Of one record, in its widest tensor: rows beyond are counted."""
BYTES: Final = 256 << 10
"""Of one record, a quarter of what its topic takes: where values are long texts, fewer rows are written down."""

LONGEST: Final = 1_000
"""Characters of an id that are kept."""

_encode = msgspec.json.Encoder().encode


class Inferences:
    """Writes down a `share` of the answers of one process, chosen by the id of the record."""

    def __init__(self, topic: str, recorder: Recorder, source: bytes, share: float = 1.0) -> None:
        self._topic, self._recorder, self._bound = topic, recorder, int(share * (1 << 32))
        self._head: Headers = (
            ("ce_specversion", b"1.0"),
            ("ce_type", b"penstock.inference.v1"),
            ("content-type", b"application/json"),
            (FROM, source),
        )
        self._born, self._numbers = f"{time.time_ns():x}.{os.getpid()}", itertools.count()

    async def record(
        self, version: Version, asked: Asked, found: Sequence[Array], headers: Iterable[tuple[bytes, bytes]], seconds: float
    ) -> None:
        """Return when the answer is safe. Raises what `Recorder.record` raises: then it may not be given."""
        id_ = f"{self._born}.{next(self._numbers)}".encode()
        if zlib.crc32(id_) >= self._bound:
            return
        trace = next((traceparent(value.decode("latin-1")) for name, value in headers if name == b"traceparent"), "")
        record = _record(version, asked, found, id_.decode(), seconds, trace)
        said = (*self._head, (SEQUENCE, id_))
        key = (asked.id or id_.decode())[:LONGEST].encode()
        await self._recorder.record([Send(self._topic, key, record, (*said, ("traceparent", trace.encode())) if trace else said)])


def _record(version: Version, asked: Asked, found: Sequence[Array], id_: str, seconds: float, trace: str) -> bytes:
    arrays = [*asked.feeds.values(), *found]
    widest = max((array.size // max(asked.rows, 1) for array in arrays), default=0)
    kept = min(asked.rows, VALUES // max(widest, 1))
    taken, given = version.signature.takes, version.signature.datatypes
    while True:
        value = _encode(
            Inference(
                id=(asked.id or id_)[:LONGEST],
                model=version.model,
                version=version.name,
                digest=str(version.parameters.get("sha256", "")),
                time=datetime.now(UTC),
                rows=asked.rows,
                recorded=kept,
                inputs={name: _tensor(array, taken[name], kept, asked.rows) for name, array in asked.feeds.items()},
                outputs={n: _tensor(array, given[n], kept, asked.rows) for n, array in zip(asked.wanted, found, strict=True)},
                latency=seconds,
                trace=trace[3:35],
            )
        )
        if len(value) <= BYTES or not kept:
            return value
        kept //= 2


def _tensor(array: Array, datatype: str, kept: int, rows: int) -> Tensor:
    """The first rows; where a tensor has no rows, all of it or nothing."""
    some = array if kept == rows else array[:kept] if array.shape[:1] == (rows,) else array.ravel()[:0]
    return Tensor(datatype=datatype, shape=list(array.shape), data=to_json(some))
