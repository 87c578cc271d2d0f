"""Packing: how an answer that awaits its truth is kept in memory.

Answers of one model look alike: names of inputs and versions are most of their bytes. Each is deflated by itself with the first
answer as the dictionary (RFC 1951; zlib), so that 800 bytes become some 150, and any of them is read in 4 microseconds without
the others.
"""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Answer", "Packing"]

WINDOW, MEMORY, LEVEL = -12, 4, 6
"""Deflate without a header; 4 kB of window hold any answer worth packing."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the ledger needs of a Prediction."""

    id: str
    key: str
    time: datetime
    inputs: msgspec.Raw
    score: float
    scores: dict[str, float]
    version: str
    variant: str
    digest: str = ""
    answer: str = ""
    probabilities: dict[str, dict[str, float]] = {}
    traceparent: str = ""
    """Of the record, not in it: where its trace goes on, empty when it is not traced."""
    segments: dict[str, str] = {}
    latency: float = 0.0
    """Seconds; counted when it comes, and not kept."""


class _Kept(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An Answer, but for its id."""

    key: str
    time: datetime
    inputs: msgspec.Raw
    score: float
    scores: dict[str, float]
    version: str
    variant: str
    traceparent: str = ""
    answer: str = ""
    probabilities: dict[str, dict[str, float]] = {}
    segments: dict[str, str] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Kept).decode


class Packing:
    """Packs answers of one model, most of them of one shape.

    >>> packing, said = Packing(), b'{"inputs":{"Card.spend_24h":1.5}}'
    >>> packed = packing.packed(said), packing.packed(said)
    >>> [packing.value(each, 0) == said for each in packed], len(packed[1]) < 10
    ([True, True], True)
    """

    def __init__(self) -> None:
        self._like: bytes | None = None
        self._deflate: Any = None

    def spelled(self, answer: Answer) -> bytes:
        """An answer as JSON, without its id."""
        a = answer
        many = (a.answer, a.probabilities) if a.probabilities else ()
        kept = _Kept(a.key, a.time, a.inputs, a.score, a.scores, a.version, a.variant, a.traceparent, *many)
        return _encode(msgspec.structs.replace(kept, segments=a.segments) if a.segments else kept)

    def packed(self, value: bytes) -> bytes:
        if self._like is None:
            self._like = value
            self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW, MEMORY, zlib.Z_DEFAULT_STRATEGY, value)
        deflate = self._deflate.copy()
        return deflate.compress(value) + deflate.flush()  # type: ignore[no-any-return]

    def value(self, packed: bytes, start: int) -> bytes:
        """What was packed, of bytes that begin at `start`."""
        assert self._like is not None
        return zlib.decompressobj(WINDOW, self._like).decompress(memoryview(packed)[start:])

    def answer(self, name: str, value: bytes) -> Answer:
        """The answer to an id."""
        a = _decode(value)
        said = a.inputs, a.score, a.scores, a.version, a.variant, "", a.answer, a.probabilities, a.traceparent, a.segments
        return Answer(name, a.key, a.time, *said)
