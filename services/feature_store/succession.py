"""Succession: which generation of the views is in charge, and how one takes over from another (`penstock.runtime.generation`).

Whoever takes over does all of it, so it needs nobody's help: the other may have died.

    1  every shard of the other is fenced by a write; what its last write had still to publish is published, under its numbers, so
       readers drop what they have had. (Every process fences all: none waits for another. And all others that were ever put in
       charge: one that never ran has not fenced those before it)
    2  now the rows, late events and dead letters on the topics are all that the other said
    3  of the own shadow, what is not among them is sent on, under the numbers that it has; from there on the shards send
       themselves, and leave out what the other had said ahead of them

A kill at any point is made good by doing it again: what was sent on is among what was said then. Where yet another generation is
put in charge meanwhile, it ends (`confirm`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

import msgspec
import structlog

from penstock.log import Batch, Log, Send
from penstock.records import Charge, Clock
from penstock.runtime.control import Tail
from penstock.runtime.generation import MARK, OF, Mark, charges, counted, in_charge, meant_for
from penstock.runtime.merge import NEVER
from penstock.runtime.outbox import FROM, Outbox, letter_of, stamped
from penstock.runtime.patience import patiently
from penstock.store import REBUILDING, STATUS, Change, Fenced, Saved, Store
from penstock.topics import Topics

from .published import Published

__all__ = ["Succession"]

T = TypeVar("T")


class Succession:
    """Of one process. `prepare` comes before shards are opened, `confirm` when they are; then they ask for what follows."""

    def __init__(self, topics: Topics, log: Log, store: Store) -> None:
        self._topics, self._log, self._store = topics, log, store
        self.charge = Charge(number=0, generation="")
        self._others: list[str] = []
        """All that were put in charge before."""
        self.since = NEVER
        """A shadow that begins now shows what is of this effective time or later: the rest is out."""
        self.until: dict[int, int] = {}
        """In charge, by shard: others have sent rows up to this effective time."""
        self.said = Published(topics)
        """What others have sent; shared with the shards."""
        self.letters: set[Hashable] = set()
        self._logger = structlog.get_logger(service="feature_store", generation=topics.generation)

    @property
    def in_charge(self) -> bool:
        return self.charge.generation == self._topics.generation

    def overtaken(self, batch: Batch) -> bool:
        """Whether these records put this generation in charge. (That another one is in charge is learnt by being fenced.)"""
        news = [said for said in charges(batch.values) if said.number > self.charge.number]
        charge = in_charge(news, self.charge) if news else None
        return charge is not None and charge.generation == self._topics.generation and not self.in_charge

    async def prepare(self, numbers: Sequence[int]) -> int:
        """Find out who is in charge, and take over where it is us. The effective time up to which a shard without state is being
        built; NEVER where there was no other."""
        self.charge = await self._find()
        self.since, self.until, self.said, self.letters = NEVER, {}, Published(self._topics), set()
        if not self.in_charge:
            self.since = min(await self._closed())
            await self._hear([self._topics.passed])  # the order in which events were processed is the same for all
            self._logger.info("shadow", meaning=f"generation {self.charge.generation} of the views is in charge")
            return self.since
        if self.charge.previous:
            await self._succeed(sorted(numbers))
        return max(self.until.values(), default=NEVER)

    async def confirm(self) -> None:
        """Fenced where somebody was put in charge since: he may have fenced these shards before they were opened."""
        if in_charge(await self._charges()) != self.charge:
            raise Fenced("another generation of the views was put in charge meanwhile")

    async def _find(self) -> Charge:
        found = counted(await self._charges())
        if not found:
            views = {v.name: v.fingerprint for hop in self._topics.project.topology.hops for v in hop.views}
            first = Charge(number=1, generation=self._topics.generation, views=views)
            await self._patient(lambda: self._log.send([Send(self._topics.generations, None, msgspec.json.encode(first))]))
            found = counted(await self._charges())
            assert found, "the log does not show what was sent to it"
        self._others = [name for name in dict.fromkeys(said.generation for said in found) if name != found[-1].generation]
        return found[-1]

    async def _charges(self) -> list[Charge]:
        found: list[Charge] = []

        async def hear(batch: Batch) -> None:
            found.extend(charges(batch.values))

        await self._read([self._topics.generations], hear)
        return found

    async def _closed(self) -> list[int]:
        """By shard of whoever was in charge, the time before which all its rows are out."""
        newest = dict.fromkeys((f"feature_store.{number}" for number in range(self._topics.partitions)), NEVER)

        async def hear(batch: Batch) -> None:
            for key, value in zip(batch.keys, batch.values, strict=True):
                if key is not None and value and (name := key.decode("utf-8", "replace")) in newest:
                    newest[name] = max(newest[name], msgspec.json.decode(value, type=Clock).before)

        await self._read([self._topics.clock], hear)
        return list(newest.values())

    # --- taking over -----------------------------------------------------------------------------------------------

    async def _succeed(self, numbers: Sequence[int]) -> None:
        names, number = self._topics.shard, self.charge.number
        marks = {n: await self._mark(names(n)) for n in numbers}
        todo = [n for n, mark in marks.items() if mark.number < number]
        if todo:
            others = [names(n, other) for other in self._others for n in range(self._topics.partitions)]
            until = max([await self._patient(lambda name=name: self._fence(name)) for name in others])  # type: ignore[misc]
            for n in todo:
                await self._patient(lambda n=n: self._owed(names(n)))  # type: ignore[misc]
            await self._hear(self._outward)
            until = max(until, *await self._closed(), self.said.newest + 1)  # the others' states may be lost
            await self._send_on({names(n).encode() for n in todo})
            for n in todo:
                marks[n] = Mark(number, until)
                await self._patient(lambda n=n: self._marked(names(n), marks[n]))  # type: ignore[misc]
            self._logger.info("in charge", meaning=f"took over from generation {self.charge.previous}", shards=todo)
        self.until = {n: mark.until for n, mark in marks.items()}
        if not todo and await self._behind(numbers):
            await self._hear(self._outward)

    async def _fence(self, shard: str) -> int:
        """Take a shard from whoever runs it, and publish what its last write had still to publish. The newest effective time at
        which it has let events go on."""
        while True:
            saved = await self._store.open(shard)
            if (await self._mark(shard)).number >= self.charge.number:
                return max(_times(saved.position), default=NEVER)
            mark = Mark(self.charge.number)
            await self._publish(shard, saved)
            try:
                await self._store.write(shard, saved.version, Change(saved.position, saved.outbox, heads={MARK: mark.pack()}))
            except Fenced:  # it has written meanwhile
                continue

    async def _owed(self, shard: str) -> None:
        """Publish what the own shard's last write had still to publish: a part of its shadow."""
        await self._publish(shard, await self._store.open(shard))

    async def _publish(self, shard: str, saved: Saved) -> None:
        outbox = Outbox.unpack(saved.outbox)
        await self._log.send(stamped(shard, outbox.write, outbox.sends))

    @property
    def _outward(self) -> list[str]:
        """What others read of the feature store."""
        topics = self._topics
        topology = topics.project.topology
        found = [*(topics.rows(event) for event in topology.reads), topics.passed, *([topics.late] if topics.bounded else [])]
        return found + [topics.dead_letters(event.topic) for hop in topology.hops for event in hop.direct]

    async def _hear(self, topics: Sequence[str]) -> None:
        """Take note of all that is out on some topics."""

        async def hear(batch: Batch) -> None:
            if batch.partition.topic[-4:] == ".dlq":
                self.letters |= {letter_of(batch.partition.topic, headers) for headers in batch.headers}
            else:
                self.said.recall(batch)

        await self._read(topics, hear)

    async def _send_on(self, sources: set[bytes]) -> None:
        """Send what these shards have shown, and nobody has said."""

        async def hear(batch: Batch) -> None:
            sends = []
            for i, headers in enumerate(batch.headers):
                topic, source = meant_for(headers), dict(headers).get(FROM)
                if topic is None or source not in sources:
                    continue
                letter = topic[-4:] == ".dlq"
                if letter:  # goes with the headers of whoever published it
                    headers = tuple(h for h in headers[: [name for name, _ in headers].index(OF)])
                    new = (name := letter_of(topic, headers)) not in self.letters
                    self.letters.add(name)
                else:
                    headers = tuple(h for h in headers if h[0] != OF)
                    new = self.said.first(topic, batch.values[i] or b"")
                if new:
                    sends.append(Send(topic, batch.keys[i], batch.values[i], headers, batch.partition.number))
            await self.confirm()  # who is put in charge next relies on what was said when it began
            await self._patient(lambda: self._log.send(sends))

        await self._read([self._topics.shadow], hear)

    async def _behind(self, numbers: Sequence[int]) -> bool:
        """Whether a shard has not yet come to where the one before it was."""
        for n in numbers:
            saved = await self._patient(lambda n=n: self._store.open(self._topics.shard(n)))  # type: ignore[misc]
            if _done(saved.position) < self.until[n]:
                return True
        return False

    async def _mark(self, shard: str) -> Mark:
        return Mark.unpack((await self._store.read(shard, [MARK]))[0][0])

    async def _marked(self, shard: str, mark: Mark) -> None:
        saved = await self._store.open(shard)
        if (await self._mark(shard)).number > mark.number:
            raise Fenced("another generation of the views has taken over meanwhile")
        status = {} if saved.version else {STATUS: REBUILDING}  # a state that never was, or is lost: the lane knows more
        await self._store.write(shard, saved.version, Change(saved.position, saved.outbox, heads={MARK: mark.pack(), **status}))

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, topics: Sequence[str], hear: Callable[[Batch], Awaitable[None]]) -> None:
        """Hear all that is on some topics now."""
        tail = Tail(self._log, topics)

        async def read() -> None:
            async for batch in tail.news():
                await hear(batch)

        try:
            await self._patient(read)
        finally:
            await tail.close()

    async def _patient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(attempt, self._logger, lambda: None)


def _done(position: bytes) -> int:
    """The effective time up to which a shard has done all."""
    return min(_times(position), default=NEVER)


def _times(position: bytes) -> list[int]:
    return [hop["released"] for hop in msgspec.msgpack.decode(position)["hops"].values()] if position else []
