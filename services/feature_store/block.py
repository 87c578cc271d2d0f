"""Events under way, as columns: inside a hop, and between hops as one record per step and target partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.runtime.merge import Column, column

__all__ = ["Block", "Rows"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """What travels with an event beside its effective time, rank and id; parallel columns of n rows."""

    times: Ints
    """The events' own times in microseconds."""
    events: Column
    """Decoded."""
    raws: Column
    """As published."""
    features: Floats
    """(n, widest row): values of the hops passed so far, in the order of `Topology.columns`; what is not known is NaN."""
    cursors: Ints
    """(n, 4 + 2 * hops): partition and offset of the source, then (partition, events before) per hop; -1 where not read. The
    last but one is where the row's windows end if that is after its time, microseconds, else -1; the last is 1 where the event
    came too late for a view."""
    traces: Column
    """traceparent, "" for events that are not traced."""

    def take(self, where: Ints | slice) -> Rows:
        """These rows alone."""
        return Rows(
            self.times[where], self.events[where], self.raws[where],
            self.features[where], self.cursors[where], self.traces[where],
        )  # fmt: skip


class Block(msgspec.Struct, array_like=True):
    """The record: rows of one upstream hop partition, in its order, and its frontier. Without rows it is a tick."""

    hop: str
    shard: int
    number: int
    """Grows with every write of the upstream shard; a block that does not grow is a repeat."""
    frontier: int
    effective: bytes = b""
    """int64 microseconds; likewise int64 the ranks, times and cursors, float64 the features."""
    ranks: bytes = b""
    ids: list[str] = []
    times: bytes = b""
    raws: list[bytes] = []
    features: bytes = b""
    cursors: bytes = b""
    traces: dict[int, str] = {}

    @property
    def source(self) -> str:
        return f"{self.hop}.{self.shard}"

    def rows(self, decoders: Sequence[Callable[[bytes], Any]]) -> tuple[Ints, Ints, list[str], Rows]:
        """Effective times, ranks, ids and rows; `decoders` by rank."""
        n = len(self.ids)
        ranks = _ints(self.ranks)
        events = [decoders[rank](raw) for rank, raw in zip(ranks.tolist(), self.raws, strict=True)]
        traces = column([""] * n)
        for i, trace in self.traces.items():
            traces[i] = trace
        rows = Rows(
            _ints(self.times),
            column(events),
            column(self.raws),
            np.frombuffer(bytearray(self.features), np.float64).reshape(n, -1) if self.features else np.empty((n, 0)),
            _ints(self.cursors).reshape(n, -1),
            traces,
        )
        return _ints(self.effective), ranks, self.ids, rows


def _ints(words: bytes) -> Ints:
    """A copy, because arrays on bytes cannot be written, and hops write into rows."""
    return np.frombuffer(bytearray(words), np.int64)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Block).decode


def pack(hop: str, shard: int, number: int, frontier: int, effective: Ints, ranks: Ints, ids: Column, rows: Rows) -> bytes:
    """The record of a block."""
    return _encode(
        Block(
            hop, shard, number, frontier, effective.tobytes(), ranks.tobytes(), ids.tolist(), rows.times.tobytes(),
            rows.raws.tolist(), rows.features.tobytes(), rows.cursors.tobytes(),
            {int(i): rows.traces[i] for i in np.flatnonzero(rows.traces)},
        )
    )  # fmt: skip


def tick(hop: str, shard: int, number: int, frontier: int) -> bytes:
    """The record of a block without rows."""
    return _encode(Block(hop, shard, number, frontier))


def unpack(value: bytes) -> Block:
    """A block from its record; msgspec.DecodeError if it is none."""
    return _decode(value)
