"""Opening shards: each is restored from the store; what the log has of it tells what its last write has still to publish, and
whether the store has lost writes, which are then done again (see `outbox`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ..log import Batch, Log, Partition
from ..records import Clock
from ..store import LIVE, REBUILDING, STATUS, Change, Store
from .control import Tail
from .deadletter import cause_of
from .merge import NEVER
from .outbox import Loss, Outbox, letter_of, numbered, stamped, write_of
from .outlet import Outlet
from .patience import Patient
from .shard import Held, Shard

__all__ = ["Handover", "Opening"]


class Handover(Protocol):
    """What comes before shards are opened, and after, where others may have run what they do (see `generation`)."""

    async def prepare(self, numbers: Sequence[int]) -> int:
        """Take these shards over. The time up to which one without state is being built; NEVER: it just begins."""
        ...

    async def confirm(self) -> None:
        """When they are open. Raises Fenced where what was prepared holds no more: whoever changes that after it fences them."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """How one lane opens shards; the fields are its own."""

    service: str
    log: Log
    store: Store
    make: Callable[[int], Shard]
    place: Callable[[int], str]
    shared: Sequence[str]
    clock: str
    """Where its shards close times; "": they close none."""
    outlet: Outlet
    handover: Handover | None
    patient: Patient
    logger: Any

    async def open(self, numbers: Sequence[int]) -> tuple[dict[int, Held], dict[int, Mapping[Partition, int]]]:
        """The shards of these partitions, with what they still owe published, and where each reads on. Raises Fenced where
        somebody takes them over meanwhile."""
        held, positions = dict[int, Held](), dict[int, Mapping[Partition, int]]()
        until = NEVER if self.handover is None else await self.handover.prepare(numbers)
        for number in numbers:
            name = self.place(number)
            saved = await self.patient(lambda name=name: self.store.open(name))  # type: ignore[misc]
            shard = self.make(number)
            positions[number] = shard.open(saved)
            held[number] = Held(name, shard, saved.version, saved.position, Outbox.unpack(saved.outbox))
        if self.handover is not None:
            await self.handover.confirm()
        newest, out = await self._recall(held)
        for number, each in held.items():
            await self._resume(number, each, newest[number], out[number], until)
        return held, positions

    async def _recall(self, held: Mapping[int, Held]) -> tuple[dict[int, int], dict[int, set[int]]]:
        """Read what the log has of these shards since the writes that the store knows: the number of each one's newest write, and
        the numbers of its last outbox that are out. Shards hear what the store has lost."""
        writes = self.outlet.writes
        begins = await self.patient(lambda: self.log.begins(writes))
        known = {p: max(begin, min((h.outbox.end(p) for h in held.values()), default=0)) for p, begin in begins.items()}
        newest, out = {number: h.outbox.write for number, h in held.items()}, {number: set[int]() for number in held}

        async def hear(batch: Batch) -> None:
            for number, rows in self._own(batch, held).items():
                each, lost = held[number], []
                for row, found in rows:
                    if found is None:
                        each.letters.add(letter_of(batch.partition.topic, batch.headers[row]))
                        continue
                    write = write_of(found)
                    newest[number] = max(newest[number], write)
                    if write == each.outbox.write:
                        out[number].add(found)
                    if write > each.outbox.write or (each.loss is not None and each.loss.holds(write)):
                        lost.append(row)
                if lost:
                    each.shard.recall(_some(batch, lost))

        ends = await self.outlet.look()
        if any(at < ends[partition.topic][partition.number] for partition, at in known.items()):
            await self._read(Tail(self.log, writes, known), hear)
        return newest, out

    def _own(self, batch: Batch, held: Mapping[int, Held]) -> dict[int, list[tuple[int, int | None]]]:
        """By shard, which records of a batch are its own, and their numbers: None for dead letters."""
        names, found = {each.name: number for number, each in held.items()}, dict[int, list[tuple[int, int | None]]]()
        letters = batch.partition.topic[-4:] == ".dlq"
        for row, headers in enumerate(batch.headers):
            if letters:
                if batch.partition.number in held and cause_of(headers).get("dlq.service") == self.service:
                    found.setdefault(batch.partition.number, []).append((row, None))
                continue
            said = numbered(headers)
            if said is not None and said[0] in names:
                found.setdefault(names[said[0]], []).append((row, said[1]))
        return found

    async def _resume(self, number: int, held: Held, newest: int, out: set[int], until: int) -> None:
        """Publish what is left of the outbox; and where the store has lost writes, or never had any of a shard that is to come up
        to a time, say so until they are done."""
        left = stamped(held.name, held.outbox.write, held.outbox.sends)
        left = [send for send in left if (said := numbered(send.headers)) is None or said[1] not in out]
        left = [send for send in left if letter_of(send.topic, send.headers) not in held.letters]
        await self.outlet.send(left)
        loss = held.loss
        if newest > held.outbox.write or (until > NEVER and not held.position):
            ends = await self.patient(lambda: self.log.ends(self.shared))
            inputs = {partition.topic: end for partition, end in ends.items() if partition.number == number}
            closed = max(until, await self._closed(number))
            loss = Loss(loss.after if loss else held.outbox.write, newest, inputs, closed)
        if newest > held.outbox.write:
            lost = newest - held.outbox.write
            self.logger.warning("behind", shard=number, meaning=f"the store has lost its last {lost} writes; doing them again")
        if loss is None and held.version and (held.position or self.handover is None):  # who prepares may have marked it
            return
        status = REBUILDING if loss is not None and loss.closed > NEVER else LIVE
        held.outbox = msgspec.structs.replace(held.outbox, write=max(newest, held.outbox.write))
        change = Change(held.position, heads={STATUS: status})
        await self.patient(lambda: held.write(self.store, self.outlet.ends, change, [], loss))

    async def _closed(self, number: int) -> int:
        """The newest time that this shard has closed."""
        names, closed = {self.place(number).encode(), f"{self.service}.{number}".encode()}, NEVER

        async def hear(batch: Batch) -> None:
            nonlocal closed
            said = [value for key, value in zip(batch.keys, batch.values, strict=True) if key in names and value]
            closed = max([closed, *(msgspec.json.decode(value, type=Clock).before for value in said)])

        if self.clock:
            await self._read(Tail(self.log, [self.clock]), hear)
        return closed

    async def _read(self, tail: Tail, hear: Any) -> None:
        """Hear all that is there now."""

        async def read() -> None:
            async for batch in tail.news():
                await hear(batch)

        try:
            await self.patient(read)
        finally:
            await tail.close()


def _some(batch: Batch, rows: Sequence[int]) -> Batch:
    found = [batch.record(row) for row in rows]
    return Batch(batch.partition, [r[0] for r in found], [r[1] for r in found], [r[2] for r in found], [r[3] for r in found])
