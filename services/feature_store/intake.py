"""The intake of one event topic, one partition: published records become rows, or leave with the cause of their refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np

from penstock.codec import EventDecoder, entities_of
from penstock.errors import Refused
from penstock.event import Event
from penstock.log import Batch, Send
from penstock.runtime.deadletter import dead_letter
from penstock.runtime.merge import column
from penstock.runtime.telemetry import trace_of
from penstock.topics import Topics

from .block import Rows
from .hop import width_of

__all__ = ["Intake"]

REMEMBERED_IDS = 65_536
"""Repeats of an id are recognised within this many newest events of a partition: hours to days of a busy topic. A repeat has its
key, too, and so lies in the same partition: were the id enough, the number of partitions would decide what is taken."""
CHUNKS = 4096
"""Stored lists of ids: each step that lets events go writes one, and the oldest goes."""


class Intake:
    """Takes events of one kind; every event goes on once, and every refused record leaves once."""

    def __init__(self, event: Event, topics: Topics, number: int) -> None:
        topology = topics.project.topology
        self.event, self.rank, self.number = event, topology.rank[event], number
        self.refused = -1
        """The newest offset refused: a batch is read again after a restart while older records of its topic wait."""
        self._partitions = topics.partitions
        self._width, self._cursor = width_of(topology), 4 + 2 * len(topology.hops)
        self._decoder = EventDecoder(event)
        self._known: dict[str, None] = {}
        self._chunks: list[int] = []

    def take(self, batch: Batch, now: float, targets: Callable[[Sequence[str]], list[int]]) -> tuple[list[str], Rows, list[Send]]:
        """Ids and rows of what is in order, and dead letters for the rest. `targets` says the partitions of keys."""
        decoded, times, refused = self._decoder.decode_all(batch.values, now)
        named = (self.event.id or self.event.key,)
        ids = cast(list[str], entities_of(named, decoded) if not refused else [e and entities_of(named, [e])[0] for e in decoded])
        if self.event.id is not None:
            self._refuse_repeats(ids, decoded, refused)
        if self._partitions > 1:
            self._refuse_misplaced(decoded, targets, refused)
        offsets, headers = batch.offsets, batch.headers
        raws: Sequence[Any] = batch.values
        if refused:
            kept = [i for i in range(len(batch)) if i not in refused]
            decoded, ids, raws = ([values[i] for i in kept] for values in (decoded, ids, raws))
            times = times[kept]
            offsets, headers = [offsets[i] for i in kept], [headers[i] for i in kept] if headers else ()
        n = len(decoded)
        cursors = np.full((n, self._cursor), -1, np.int64)
        cursors[:, 0], cursors[:, 1] = self.number, offsets
        traces = [trace_of(found) for found in headers] if headers else [""] * n
        features = np.full((n, self._width), np.nan)
        rows = Rows(times, column(decoded), column(raws), features, cursors, column(traces))
        return ids, rows, self._dead(batch, refused) if refused else []

    def named(self, ids: Sequence[str], events: Sequence[Any]) -> Sequence[str]:
        """What no two events have in common: the id, with the key where that is another column."""
        if self.event.id is self.event.key:
            return ids
        keys = entities_of((self.event.key,), events)
        return [f"{len(name)} {name} {key}" for name, key in zip(ids, keys, strict=True)]

    def _refuse_repeats(self, ids: Sequence[str], decoded: Sequence[Any], refused: dict[int, Refused]) -> None:
        places: Sequence[int] = range(len(decoded))
        if refused:
            places = [i for i in places if i not in refused]
            ids, decoded = ([values[i] for i in places] for values in (ids, decoded))
        names = self.named(ids, decoded)
        known, fresh = self._known, dict.fromkeys(names)
        if len(fresh) == len(names) and known.keys().isdisjoint(fresh):
            known |= fresh
            return
        for i, said, name in zip(places, ids, names, strict=True):
            if name in known:
                refused[i] = Refused("duplicate", f"{self.event.id!r} {said!r} was published before, with the same key")
            known[name] = None

    def _refuse_misplaced(
        self, decoded: Sequence[Any], targets: Callable[[Sequence[str]], list[int]], refused: dict[int, Refused]
    ) -> None:
        places = [i for i in range(len(decoded)) if i not in refused]
        keys = cast(list[str], entities_of((self.event.key,), [decoded[i] for i in places]))
        for i, key, right in zip(places, keys, targets(keys), strict=True):
            if right != self.number:
                cause = f"the record's key must be {self.event.key!r} ({key!r}), which belongs to partition {right}"
                refused[i] = Refused("misplaced", cause)

    def _dead(self, batch: Batch, refused: Mapping[int, Refused]) -> list[Send]:
        letters = []
        for i in sorted(refused):
            if batch.offsets[i] > self.refused:
                self.refused = batch.offsets[i]
                letters.append(dead_letter(batch.partition, *batch.record(i), refused[i], "feature_store"))
        return letters

    def remember(self, version: int, ids: list[str]) -> dict[bytes, bytes | None]:
        """What to store of ids that the shard's write `version` lets go; the oldest are forgotten when enough are known."""
        self._chunks.append(version)
        table: dict[bytes, bytes | None] = {self._field(version): msgspec.msgpack.encode(ids)}
        if len(self._known) > 2 * REMEMBERED_IDS:
            for name in list(self._known)[: len(self._known) - REMEMBERED_IDS]:
                del self._known[name]
        table |= dict.fromkeys(map(self._field, self._chunks[:-CHUNKS]))
        del self._chunks[:-CHUNKS]
        return table

    def recall(self, version: int, stored: bytes) -> None:
        """Take back what `remember` stored, oldest first."""
        self._chunks.append(version)
        self._known |= dict.fromkeys(msgspec.msgpack.decode(stored, type=list[str]))

    def _field(self, version: int) -> bytes:
        return f"{self.event.topic}/{version:012d}".encode()
