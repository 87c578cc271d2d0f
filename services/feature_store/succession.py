"""Succession: which generation of the views is in charge, and how one takes over from another (`penstock.runtime.generation`).

Whoever takes over does all of it, so it needs nobody's help: the other may have died.

    1  every shard of the other is fenced by a write. (Every process fences all: none waits for another. And all others that were
       ever put in charge: one that never ran has not fenced those before it)
    2  now what is on the topics, what the others' last writes were still to send, and all of which the time is closed (retention
       may have taken it) is all that they said. Of their last writes what is not out is sent, under its numbers
    3  of the own shadow, what is not among it is sent on, under the numbers that it has; from there on the shards send
       themselves, and leave out what the other had said ahead of them, until they have come to where it was

A kill at any point is made good by doing it again: what was sent on is among what was said then. Where yet another generation is
put in charge meanwhile, it fences this one too, and finds in the marks of its shards what it was sending.

A send of somebody alive may be on its way when it is fenced: that is sent once more under the same numbers, and readers drop one
of both. A shadow must be kept for as long as nobody who runs is in charge: what it shows is sent on by the next takeover. It goes
by what is told of passed sources; where it comes to such a place before that is told, it may put late events elsewhere.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import structlog

from penstock.log import Batch, Log, Partition, Send
from penstock.records import Charge, Clock
from penstock.runtime.control import Tail
from penstock.runtime.generation import MARK, Mark, charges, in_charge, meant
from penstock.runtime.merge import NEVER
from penstock.runtime.outbox import FROM, Outbox, letter_of, stamped
from penstock.runtime.patience import patiently
from penstock.runtime.swaps import Swaps
from penstock.store import REBUILDING, STATUS, Change, Fenced, Saved, Store
from penstock.topics import Topics

from .published import ALWAYS, Published

__all__ = ["Succession"]

T = TypeVar("T")

OFTEN: Final = 20
"""Tries to fence a shard after which it is told that its process writes faster than we do."""

AT_ONCE: Final = 4096
"""Records that are sent on at once: they lie in the store until the next are, some megabytes."""


class Succession:
    """Of one process. `prepare` comes before shards are opened, `confirm` when they are; then they ask for what follows."""

    def __init__(self, topics: Topics, log: Log, store: Store) -> None:
        self._topics, self._log, self._store = topics, log, store
        self._swaps = Swaps(log, topics.generations)
        self.charge = Charge(number=0, generation="")
        self._others: list[str] = []
        """All that were put in charge before."""
        self.since = NEVER
        """A shadow that begins now shows what is of this effective time or later: the rest is out."""
        self.until: dict[int, int] = {}
        """In charge, by shard: others have sent rows up to this effective time."""
        self.said = Published(topics)
        """What others have sent, until the shards have it."""
        self.inputs: Mapping[Partition, int] = {}
        """Where the topics that shards read ended when they were opened. All that was said by then was made of what is before."""
        self.letters: set[Hashable] = set()
        self._logger = structlog.get_logger(service="feature_store", generation=topics.generation)

    @property
    def in_charge(self) -> bool:
        return self.charge.generation == self._topics.generation

    @property
    def stands(self) -> tuple[str, str]:
        """This generation, and the one that is in charge as far as is known."""
        return self._topics.generation, self.charge.generation or self._topics.generation

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
        """Fenced where somebody was put in charge since: he may have fenced these shards before they were opened. From here on
        the shards alone know what others have said, as long as they need it."""
        self.said = Published(self._topics)
        if (await self._charges())[-1:] != [self.charge]:
            raise Fenced("another generation of the views was put in charge meanwhile")
        hops = self._topics.project.topology.hops
        inward = [event.topic for hop in hops for event in hop.direct]
        inward += [self._topics.hop(hop.key) for hop in hops if hop.upstream]
        self.inputs = await self._patient(lambda: self._log.ends(inward))

    async def _find(self) -> Charge:
        found = await self._charges()
        if not found:
            views = {v.name: v.fingerprint for hop in self._topics.project.topology.hops for v in hop.views}
            first = Charge(number=1, generation=self._topics.generation, views=views)
            await self._patient(lambda: self._log.send([Send(self._topics.generations, None, msgspec.json.encode(first))]))
            found = await self._charges()
            assert found, "the log does not show what was sent to it"
        self._others = [name for name in dict.fromkeys(said.generation for said in found) if name != found[-1].generation]
        return found[-1]

    async def _charges(self) -> list[Charge]:
        """The swaps that count."""
        try:
            return await self._patient(self._swaps.counted)
        finally:
            await self._swaps.close()

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
        self.until = {n: mark.until for n, mark in marks.items()}
        if not todo and not await self._behind(numbers):
            return
        until, owed = NEVER, list[Send]()
        for name in [names(n, other) for other in self._others for n in range(self._topics.partitions) if todo]:
            released, left = await self._patient(lambda name=name: self._fence(name))  # type: ignore[misc]
            until, owed = max(until, released), [*owed, *left]
        closed = await self._closed()
        await self._hear(self._outward)
        self.said.before = min(closed)
        until = max(until, *closed, self.said.newest + 1)  # the others' states may be lost
        if not todo:
            return
        await self._send([send for send in owed if self._unsaid(send)])
        await self._send_on({names(n).encode(): marks[n] for n in todo})
        for n in todo:
            self.until[n] = max(until, self.said.newest + 1)
            await self._patient(lambda n=n: self._marked(names(n), Mark(number, self.until[n])))  # type: ignore[misc]
        self._logger.info("in charge", meaning=f"took over from generation {self.charge.previous}", shards=todo)

    async def _fence(self, shard: str) -> tuple[int, list[Send]]:
        """Take a shard from whoever runs it. The newest effective time at which it has let events go on; and what it was to say
        to others last: that is out, or on its way, or was never sent."""
        for tried in itertools.count(1):
            saved, mark = await self._store.open(shard), await self._mark(shard)
            if mark.number < self.charge.number:
                heads = {MARK: Mark(self.charge.number, owed=mark.owed).pack()}
                try:
                    await self._store.write(shard, saved.version, Change(saved.position, saved.outbox, heads=heads))
                except Fenced:  # it has written meanwhile
                    if tried % OFTEN == 0:
                        meaning = (
                            f"it has written before us {tried} times; trying on, as each try may be the one before its write"
                        )
                        self._logger.warning("not fenced", shard=shard, meaning=meaning)
                    continue
            outward, sends = set(self._outward), [*_outbox(shard, saved), *Outbox.unpack(mark.owed).sends]
            return max(_times(saved.position), default=NEVER), [send for send in sends if send.topic in outward]
        raise AssertionError

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

    def _unsaid(self, send: Send, at: int | None = ALWAYS) -> bool:
        """Whether nobody has said this yet; now it is. For `at` see `Published.first`."""
        if send.topic[-4:] != ".dlq":
            return self.said.first(send.topic, send.value or b"", at)
        name = letter_of(send.topic, send.headers)
        new = name not in self.letters
        self.letters.add(name)
        return new

    async def _send_on(self, shards: Mapping[bytes, Mark]) -> None:
        """Send what these shards have shown, and nobody has said: what their topic has of it, then what their outboxes have. A
        shard's mark holds what is on its way, so that whoever fences it meanwhile knows what may still come."""

        async def hear(shown: Iterable[Send]) -> None:
            new = defaultdict[bytes, list[Send]](list)
            for record in shown:
                source, found = dict(record.headers).get(FROM) or b"", meant(record)
                if source in shards and found is not None and self._unsaid(*found):
                    new[source].append(found[0])
            for source, sends in new.items():
                for first in range(0, len(sends), AT_ONCE):
                    await send(source, sends[first : first + AT_ONCE])

        async def send(source: bytes, sends: list[Send]) -> None:
            owed = msgspec.structs.replace(shards[source], owed=Outbox.of(0, {}, sends).pack())
            await self._patient(lambda: self._marked(source.decode(), owed))
            await self._send(sends)

        await self._read([self._topics.shadow], lambda batch: hear(_sends(batch)))
        for name in map(bytes.decode, shards):
            await hear(_outbox(name, await self._patient(lambda name=name: self._store.open(name))))  # type: ignore[misc]

    async def _send(self, sends: Sequence[Send]) -> None:
        await self._patient(lambda: self._log.send(sends))

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


def _outbox(shard: str, saved: Saved) -> Sequence[Send]:
    """What a shard's last write sends, as it is on the topics."""
    outbox = Outbox.unpack(saved.outbox)
    return stamped(shard, outbox.write, outbox.sends)


def _sends(batch: Batch) -> list[Send]:
    """Records as whoever sent them did."""
    columns = zip(batch.keys, batch.values, batch.headers, strict=True)
    return [Send(batch.partition.topic, key, value, headers, batch.partition.number) for key, value, headers in columns]


def _done(position: bytes) -> int:
    """The effective time up to which a shard has done all."""
    return min(_times(position), default=NEVER)


def _times(position: bytes) -> list[int]:
    return [hop["released"] for hop in msgspec.msgpack.decode(position)["hops"].values()] if position else []
