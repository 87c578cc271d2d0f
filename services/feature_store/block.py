"""What travels between hops: one record per step and target partition, with the events under way as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["Block", "Item"]


@dataclass(slots=True)
class Item:
    """One event under way: what it is, what the hops before have added, and where it came from."""

    rank: int
    """Which kind of event, by the project's order."""
    decoded: Any
    micros: int
    """The event's own time."""
    raw: bytes
    features: npt.NDArray[np.float64] | None
    """Values of the hops passed so far, in the row's order; None when the event is not to become a row."""
    cursor: tuple[int, ...]
    """(partition, offset) of the source, then (hop index, partition, events before) per hop that was read."""
    trace: str = ""
    origin: tuple[str, int, int] | None = None
    """(source, block number, rows up to and with this one) of the block that brought it; None from an event topic."""


class Block(msgspec.Struct, array_like=True):
    """Rows of one upstream hop partition, in its order, and its frontier. Without rows it is a tick."""

    hop: str
    shard: int
    number: int
    """Grows with every write of the upstream shard; a block that does not grow is a repeat."""
    frontier: int
    ranks: list[int] = []
    times: bytes = b""
    """Effective times, int64 microseconds."""
    ids: list[str] = []
    raws: list[bytes] = []
    cursors: list[tuple[int, ...]] = []
    features: list[bytes] = []
    """Per row its float64 values so far; empty bytes for events that do not become rows."""
    traces: dict[int, str] = {}

    @property
    def source(self) -> str:
        return f"{self.hop}.{self.shard}"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Block).decode


def pack(hop: str, shard: int, number: int, frontier: int, times: list[int], ids: list[str], items: list[Item]) -> bytes:
    """The record of a block."""
    return _encode(
        Block(
            hop, shard, number, frontier,
            [i.rank for i in items],
            np.array(times, np.int64).tobytes(),
            ids,
            [i.raw for i in items],
            [i.cursor for i in items],
            [b"" if i.features is None else i.features.tobytes() for i in items],
            {n: i.trace for n, i in enumerate(items) if i.trace},
        )
    )  # fmt: skip


def unpack(value: bytes) -> Block:
    """A block from its record; msgspec.DecodeError if it is none."""
    return _decode(value)
