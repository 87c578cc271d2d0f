"""Reading the online store: the features of entities as of a moment, by the kernel that the stream uses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ..codec import entity_of
from ..errors import Refused, Unreachable
from ..event import Event, moment_of, to_micros
from ..store import Place, StoreError
from ..topics import Topics
from .keys import entities, entity
from .lookup import Lookup, columns_of, state_key
from .query import stream_of
from .readings import Reading, Readings

__all__ = [
    "PATIENCE",
    "BlockingFeatures",
    "Late",
    "Lookups",
    "OnlineFeatures",
    "Reading",
    "Readings",
    "Source",
    "moments",
    "partitions_of",
    "state_key",
]

_CHOICES: Final = 1_000
"""Choices whose lookups are kept compiled; a project has a handful."""
_BRIEF: Final = 500
"""Rows that are computed at once on the event loop (2 ms with windows); more go to a thread, so that others are answered."""
_LAST: Final = to_micros(datetime(2200, 1, 1, tzinfo=UTC))
"""Moments are exact in float64 until 2255, windows past them included."""


PATIENCE: Final = 3.0
"""Seconds that a service waits for the store before it says so: far above any answer (a second, for 10,000 keys of many windows),
below what its own clients wait (`client.TIMEOUT`), so that they hear why."""


class Late(StoreError):
    """The store has not answered in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer from the online store in {seconds:g} s; look with: penstock doctor")


class Source(Protocol):
    """What is read: a Store, or the part of it that reading needs."""

    async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]: ...


def moments(at: Any, n: int) -> npt.NDArray[np.int64]:
    """Microseconds since 1970 of n rows, from a moment or one for each: datetimes with a time zone, text in ISO 8601 with an
    offset, datetime64 (numpy's and pandas' without a zone, which is UTC) or an array of int64, which are microseconds; None is
    now. Raises Refused in words."""
    if at is None:
        return np.full(n, time.time_ns() // 1_000, np.int64)
    if isinstance(at, np.datetime64) or (isinstance(at, np.ndarray) and at.ndim == 0):
        at = np.full(n, at)
    if isinstance(at, datetime | str):
        return np.full(n, _micros(at), np.int64)
    if hasattr(at, "to_numpy"):  # a column of a frame
        at = at.to_numpy()
    if isinstance(at, np.ndarray) and at.dtype == np.int64:
        found = at
    elif isinstance(at, np.ndarray) and at.dtype.kind == "M":
        found = at.astype("datetime64[us]").astype(np.int64)
    elif isinstance(at, Sequence | np.ndarray):
        found = np.fromiter(map(_micros, at), np.int64, len(at))
    else:
        raise Refused("schema", f"at: {str(at)[:80]!r} is no moment: write 2013-02-01T12:00:00Z")
    if found.shape != (n,):
        raise Refused("schema", f"at: {len(found)} moments for {n} keys")
    if n and not 0 <= found.min() <= found.max() <= _LAST:
        raise Refused("range", "at: a moment lies before 1970 or after 2200")
    return found


def _micros(at: Any) -> int:
    """One moment."""
    try:
        found = to_micros(moment_of(at))
    except (ValueError, OverflowError) as error:
        raise Refused("schema", f"at: {error}") from None
    if not 0 <= found <= _LAST:
        raise Refused("range", "at: a moment lies before 1970 or after 2200")
    return found


def partitions_of(position: bytes) -> int:
    """How many partitions the feature store runs with, from the position of one of its shards. Reading by another count would
    find nothing and say `missing`."""
    found = msgspec.msgpack.decode(position).get("partitions") if position else None
    if not found:
        raise Unreachable(
            "a feature store of these definitions has not written to this Redis yet",
            "build it: penstock features backfill   or start it, or correct the address: penstock status",
        )
    return int(found)


def done_of(position: bytes) -> int | None:
    """The effective time before which a shard of the feature store has processed everything, microseconds, from its position."""
    hops = msgspec.msgpack.decode(position)["hops"].values() if position else ()
    return min((hop["released"] for hop in hops), default=None)


class Lookups:
    """The lookups of one project, each compiled once, and their names."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self._of: dict[tuple[str, ...], Lookup] = {}
        self._meant: dict[Any, Lookup] = {}

    def of(self, what: Any) -> Lookup:
        """The lookup of views, features or a model: see `lookup.columns_of`. Raises Refused where there is no such thing."""
        key = tuple(what) if isinstance(what, list) else what
        found = self._meant.get(key)
        if found is None:
            if len(self._meant) >= _CHOICES:  # who makes up choices without end does not fill the memory
                self._of, self._meant = {}, {}
            columns = columns_of(self.topics.project, what)
            if columns not in self._of:
                self._of[columns] = Lookup(self.topics, columns)
            found = self._meant[key] = self._of[columns]
        return found


class BlockingFeatures:
    """Reads without an event loop; `fetch` is `Store.gather` for who has none. Safe to share between threads."""

    def __init__(self, topics: Topics, fetch: Callable[[Sequence[Place], int], tuple[list[bytes], list[bytes]]]) -> None:
        self._fetch, self._lookups = fetch, Lookups(topics)

    def read(self, what: Any, keys: Any, at: Any = None) -> Readings:
        """As `OnlineFeatures.read`."""
        lookup = self._lookups.of(what)
        named = entities(lookup.hops, keys)
        asked = lookup.ask(named)
        heads, tails = self._fetch(asked.places, asked.tailed)
        return lookup.readings(asked, heads, tails, moments(at, len(named[0])))


class OnlineFeatures:
    """Reads rows and views from the states that the feature store keeps, in one round trip.

    `patience` is seconds that the store has for one answer; then StoreError, and nothing is waited for any longer.
    """

    def __init__(self, topics: Topics, store: Source, patience: float = PATIENCE) -> None:
        self._store, self._topology, self._patience = store, topics.project.topology, patience
        self._lookups = Lookups(topics)
        self._rows = {
            event: (self._lookups.of([view.type for view in views]), views)
            for event, views in self._topology.reads.items()
            if views
        }
        self._views = {view.name: hop for hop in self._topology.hops for view in hop.views}

    async def read(self, what: Any, keys: Any, at: Any = None) -> Readings:
        """Views, features or a model (`lookup.columns_of`) of entities (`keys.entities`) at `moments`. Raises Refused in words
        for what is none of these."""
        lookup = self._lookups.of(what)
        named = entities(lookup.hops, keys)
        return await self._answer(lookup, named, moments(at, len(named[0])))

    async def row(self, event: Event, decoded: Any) -> dict[str, Reading]:
        """By view, what the row would hold that this event would get now; `decoded` as EventDecoder gives it."""
        if event not in self._rows:
            return {}
        found = (await self.rows(event, [decoded]))[0]
        return {view.name: found[view.name] for view in self._rows[event][1]}

    async def rows(self, event: Event, decoded: Sequence[Any]) -> Readings:
        """The same for many events, a row for each, of all views that their rows hold."""
        n = len(decoded)
        if event not in self._rows:
            none = np.empty((n, 0), np.int64)
            return Readings((), np.empty((n, 0)), (), none.astype(np.int8), none, none)
        lookup, _ = self._rows[event]
        named = [[entity_of(self._topology.by[hop.key, event], one) for one in decoded] for hop in lookup.hops]
        times = np.array([to_micros(getattr(one, event.time.name)) for one in decoded], np.int64)
        return await self._answer(lookup, named, times, event, decoded)

    async def view(self, name: str, key: str, moment: int) -> Reading:
        """One view of one entity at a moment (microseconds); KeyError if there is no such view.

        Derived values that need an event are None: there is no event here.
        """
        named = [[entity(self._views[name], key)]]
        return (await self._answer(self._lookups.of(name), named, np.array([moment])))[0][name]

    def warm(self, streams: bool = False) -> None:
        """Compile every view's lookup and its machine code, and load what Arrow `streams` are written with (25 MB): seconds the
        first time on a machine, which the first who asks should not wait for."""
        for name in self._views:
            lookup = self._lookups.of(name)
            nobody = lookup.ask([[None] for _ in lookup.hops])
            found = lookup.readings(nobody, [], [], moments(None, 1))
            if streams:
                stream_of(found)

    async def _answer(
        self,
        lookup: Lookup,
        named: Sequence[Sequence[str | None]],
        times: npt.NDArray[np.int64],
        event: Event | None = None,
        decoded: Sequence[Any] = (),
    ) -> Readings:
        asked = lookup.ask(named)
        try:
            async with asyncio.timeout(self._patience):
                heads, tails = await self._store.gather(asked.places, asked.tailed)
        except TimeoutError:
            raise Late(self._patience) from None
        if len(times) <= _BRIEF:
            return lookup.readings(asked, heads, tails, times, event, decoded)
        return await asyncio.to_thread(lookup.readings, asked, heads, tails, times, event, decoded)
