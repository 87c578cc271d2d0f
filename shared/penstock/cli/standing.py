"""How a generation of the views stands: what the log, the group of its feature store and the online store say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..log import Log
from . import broker

if TYPE_CHECKING:
    from ..records import Charge
    from ..store import Store
    from ..topics import Topics

__all__ = ["Standing", "built_of", "charge_of", "processes_of", "standing_of", "swaps_of"]


class Standing(msgspec.Struct, kw_only=True):
    """How a generation stands."""

    generation: str
    in_charge: bool
    declared: bool
    """Whether it is that of the project file as it is now."""
    built: bool
    processes: int
    """How many run its feature store."""
    until: str | None
    """What it has done: everything before this time."""


async def processes_of(log: Log, topics: Topics, generation: str) -> int:
    """How many processes of a generation's feature store are in its group."""
    return await log.members(topics.group("feature_store").removesuffix(topics.generation) + generation)


async def charge_of(log: Log, topics: Topics) -> Charge | None:
    """What put the generation in charge that is; None before any ran."""
    return next(reversed(await swaps_of(log, topics)), None)


async def swaps_of(log: Log, topics: Topics) -> list[Charge]:
    """The swaps that count, in order."""
    from ..runtime.generation import charges, counted

    return counted(charges([record.value async for record in broker.held(log, topics.generations)]))


async def built_of(store: Store, topics: Topics, name: str) -> bool:
    """Whether all states of a generation are up to date, or were when its feature store ended."""
    from ..store import LIVE, STATUS

    shards = [topics.shard(number, name) for number in range(topics.partitions)]
    return all([(await store.read(shard, [STATUS]))[0][0] == LIVE for shard in shards])


async def standing_of(name: str, charge: Charge | None, store: Store, topics: Topics, processes: int = 0) -> Standing:
    """How generation `name` stands, by who is in charge and what its states hold."""
    from ..event import from_micros
    from ..online.reader import done_of

    states = [await store.open(topics.shard(number, name)) for number in range(topics.partitions)]
    times = [done_of(state.position) for state in states]
    known = [time for time in times if time is not None and 0 <= time < 1 << 52]
    until = from_micros(min(known)).isoformat() if len(known) == len(times) else None
    return Standing(
        generation=name,
        in_charge=charge is not None and charge.generation == name,
        declared=name == topics.generation,
        built=await built_of(store, topics, name),
        processes=processes,
        until=until,
    )
