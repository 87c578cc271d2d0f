"""How a generation of the views stands: what the log, the group of its feature store and the online store say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..log import Log
from . import broker

if TYPE_CHECKING:
    from ..records import Charge
    from ..store import Store
    from ..topics import Topics

__all__ = ["Standing", "charge_of", "closed_of", "processes_of", "standing_of", "swaps_of"]


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


async def closed_of(log: Log, topics: Topics) -> dict[str, int]:
    """By publisher the newest time that it has closed, microseconds."""
    from ..records import Clock

    closed: dict[str, int] = {}
    async for record in broker.held(log, topics.clock):
        try:
            said = msgspec.json.decode(record.value or b"", type=Clock)
        except msgspec.MsgspecError:
            continue
        closed[said.publisher] = max(said.before, closed.get(said.publisher, said.before))
    return closed


async def standing_of(
    name: str, charge: Charge | None, closed: Mapping[str, int], store: Store, topics: Topics, processes: int = 0
) -> Standing:
    """How generation `name` stands, by who is in charge and what is closed."""
    from ..event import from_micros
    from ..store import LIVE, STATUS

    shards = [topics.shard(number, name) for number in range(topics.partitions)]
    heads = [(await store.read(shard, [STATUS]))[0][0] for shard in shards]
    leading = charge is not None and charge.generation == name
    told = [f"feature_store.{n}" for n in range(topics.partitions)] if leading else shards
    times = [closed.get(publisher) for publisher in told]
    known = [time for time in times if time is not None]
    until = from_micros(min(known)).isoformat() if len(known) == len(times) and max(known) < 1 << 52 else None
    return Standing(
        generation=name,
        in_charge=leading,
        declared=name == topics.generation,
        built=all(head == LIVE for head in heads),
        processes=processes,
        until=until,
    )
