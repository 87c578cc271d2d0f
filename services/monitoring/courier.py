"""A courier: carries what the notices topic says along one route, at least once.

    notices since the last round -> one message a cause -> the route, again and again for a day -> or <p>.notices.dlq

Notices are gathered for some seconds, or for as long as the route was down, and all of one cause are one message: so neither a
storm nor an outage of the mail server ends in a flood. Before a round is sent it is written down what belongs to it, and after
each message that it is out: whoever goes on after a crash repeats one message at most, under the same id.

A route that is new begins with what is said from then on; so does one whose store has lost all, for old alarms told anew
mislead. `penstock dlq replay <p>.notices` sends what could not be delivered again, by the route that it was meant for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from penstock.alerts.message import Message, messages
from penstock.alerts.routes import Delayed, Route, Undeliverable
from penstock.errors import Refused
from penstock.log import Gap, Headers, Log, LogError, Partition
from penstock.records import Notice
from penstock.runtime.deadletter import dead_letter
from penstock.store import Change, Fenced, Store, StoreError
from penstock.topics import Topics

from .meters import RouteMeters

__all__ = ["ROUTE", "Courier", "delay"]

ROUTE: Final = "alert.route"
"""Header of a notice that is for one route only."""
LOOK: Final = 2.0
"""Seconds between two looks for something to carry."""
GATHER: Final = 10.0
"""Seconds that the first notice of a round waits for others: alarms of one window are said within moments."""
MOST: Final = 500
"""Notices of a round."""
FIRST: Final = 1.0
LONGEST: Final = 300.0
"""Seconds before the second attempt, and before later ones, each twice as long, at most."""
ASKED: Final = 3600.0
"""Seconds that a route may ask for at most."""
PATIENCE: Final = 86_400.0
"""Seconds after which a message that does not get through is given up: an alarm of yesterday is for the page and the log."""


class _Progress(msgspec.Struct):
    """The round of notices from `next` to `until`, of whose messages `done` are out; `began`: the first attempt at the one after
    them, in wall-clock seconds, 0 before it."""

    next: int
    until: int
    done: int = 0
    began: float = 0.0


class _Found(msgspec.Struct):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    notice: Notice


def delay(attempt: int, asked: float = 0.0) -> float:
    """Seconds before the attempt after the `attempt`-th, of which `asked` were asked for.

    >>> [delay(n) for n in (1, 2, 3, 12)], delay(1, 30.0), delay(1, 90_000.0)
    ([1.0, 2.0, 4.0, 300.0], 30.0, 3600.0)
    """
    return max(min(FIRST * 2.0 ** min(attempt - 1, 16), LONGEST), min(asked, ASKED))


class Courier:
    """One route's. `holds` says whether this process is the one that carries (it holds the notifier's shard); `clock` is the wall
    clock in seconds, and `pause` waits that long, or less when it is to stop."""

    def __init__(
        self,
        route: Route,
        topics: Topics,
        log: Log,
        store: Store,
        holds: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.route, self._topics, self._log, self._store, self._holds = route, topics, log, store, holds
        self._clock, self._pause, self._stop = clock, pause, asyncio.Event()
        self._at, self._place = Partition(topics.notices, 0), f"courier.{route.name}"
        self._progress: _Progress | None = None
        self._version = 0
        self._logger = structlog.get_logger(service="monitoring", route=route.name)
        self._meters = RouteMeters(route.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Carry until `stop` is set; an attempt that is under way then may be repeated."""

        async def pause(seconds: float) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await stop.wait()

        self._stop, self._pause, told = stop, pause, ""
        while not stop.is_set():
            try:
                if not self._holds() or not await self.turn():
                    await pause(LOOK)
                told = ""
            except Fenced:  # another process carries now, or the store was wiped
                self._progress = None
            except Gap as gap:
                self._logger.error("notices were deleted before they were carried", cause=str(gap))
                self._progress = None
                await pause(LOOK)
            except (LogError, StoreError) as error:
                if str(error) != told:
                    told = str(error)
                    self._logger.warning("waiting", cause=told)
                await pause(LOOK)

    async def turn(self) -> bool:
        """Carry what there is; whether there was anything. LogError, StoreError: later; Fenced: another one carries."""
        progress = self._progress or await self._open()
        if progress.until == progress.next:
            if not await self._there(progress):
                return False
            await self._pause(GATHER)
            progress.until = min(progress.next + MOST, await self._end())
            await self._keep(progress)
        found = await self._read(progress)
        mine = [each for each in found if dict(each.headers).get(ROUTE, self.route.name.encode()) == self.route.name.encode()]
        for message in messages(self._topics.prefix, [each.notice for each in mine])[progress.done :]:
            if not await self._deliver(message, progress, mine):
                return True  # whoever carries then goes on from here
            progress.done, progress.began = progress.done + 1, 0.0
            await self._keep(progress)
        self._progress = _Progress(progress.until, progress.until)
        await self._keep(self._progress)
        return True

    async def _deliver(self, message: Message, progress: _Progress, found: list[_Found]) -> bool:
        """Try until it is out, or given up; False when it is no longer ours to carry."""
        if not progress.began:
            progress.began = self._clock()
            await self._keep(progress)
        attempt = 0
        while self._holds() and not self._stop.is_set():
            attempt += 1
            try:
                said = await self.route.send(message)
            except Exception as error:  # whatever a library may raise: one message must not end what watches the models
                self._meters.failed.inc()
                wait = delay(attempt, error.after) if isinstance(error, Delayed) else 0.0
                if isinstance(error, Delayed) and self._clock() + wait <= progress.began + PATIENCE:
                    if attempt == 1:
                        self._logger.warning("waiting", cause=str(error), message=message.title)
                    await self._pause(wait)
                    continue
                known = isinstance(error, Delayed | Undeliverable)
                await self._give_up(message, found, str(error) if known else f"{type(error).__name__}: {error}")
                return True
            self._meters.sent.inc()
            self._logger.info("sent", message=message.title, id=message.id, answer=said)
            return True
        return False

    async def _give_up(self, message: Message, found: list[_Found], cause: str) -> None:
        todo = f"mend the route (penstock alerts test), then: penstock dlq replay {self._topics.notices}"
        self._logger.error("undelivered", message=message.title, cause=cause, todo=todo)
        refusal, mark = Refused("undelivered", f"{self.route.name}: {cause}"), (ROUTE, self.route.name.encode())
        await self._log.send(
            [
                dead_letter(self._at, f.offset, f.key, f.value, (*_plain(f.headers), mark), refusal, "monitoring")
                for f in found
                if (f.notice.subject, f.notice.cause) == (message.subject, message.cause)
            ]
        )
        self._meters.given_up.inc()

    async def _open(self) -> _Progress:
        saved = await self._store.open(self._place)
        self._version, end = saved.version, await self._end()
        progress = msgspec.msgpack.decode(saved.position, type=_Progress) if saved.position else _Progress(end, end)
        begin = (await self._log.begins([self._at.topic]))[self._at]
        if progress.until > end:  # the topic was made anew
            progress = _Progress(end, end)
        elif progress.next < begin:  # records were deleted
            progress = _Progress(begin, begin)
        self._progress = progress
        await self._keep(progress)
        return progress

    async def _keep(self, progress: _Progress) -> None:
        self._version = await self._store.write(self._place, self._version, Change(msgspec.msgpack.encode(progress)))

    async def _end(self) -> int:
        return (await self._log.ends([self._at.topic]))[self._at]

    async def _there(self, progress: _Progress) -> bool:
        waiting = await self._end() - progress.next
        self._meters.waiting.set(max(waiting, 0))
        return waiting > 0

    async def _read(self, progress: _Progress) -> list[_Found]:
        """The notices of the round."""
        found: list[_Found] = []
        reader = await self._log.reader({self._at: progress.next})
        try:
            at = progress.next
            while at < progress.until:
                for batch in await reader.read(progress.until - at, 1.0):
                    for row in range(len(batch)):
                        offset, key, value, headers = batch.record(row)
                        if offset >= progress.until:
                            continue
                        try:
                            notice = msgspec.json.decode(value or b"", type=Notice)
                            found.append(_Found(offset, key, value, headers, notice))
                        except msgspec.MsgspecError as error:  # what writes this topic is ours
                            self._logger.error("unreadable", topic=self._at.topic, offset=offset, cause=str(error))
                    at = batch.next
        finally:
            await reader.close()
        return found


def _plain(headers: Headers) -> Headers:
    return tuple(h for h in headers if h[0] != ROUTE)
