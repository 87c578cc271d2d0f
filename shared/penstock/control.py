"""The control lane: services of few records and much consequence (trainer, registry), in three shells.

A service brings a *control*: an object that takes one record at a time and answers with the records to send. It is
idempotent (everything that it makes has an id derived from its cause), so at-least-once delivery is enough, and its
state is what it has published: `follows` are replayed whole at the start through `recall`, then `reads` go through
`apply`.

    recall(follows, to their ends) -> read -> apply -> log.send -> acknowledge

A record that cannot be taken goes to `<topic>.dlq` and is acknowledged; a log or disk that is away is waited for. The
shells are `ControlLoop` (any log: simulate, embedded, tests), `faust_app` (Kafka), and a unit test that calls `apply`.
A control runs once per project: its state is in memory, and topics of one partition are not shared out.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from .deadletter import dead_letter
from .errors import Refused
from .log import Gap, Headers, Log, Partition, Reader, Send, TooLarge
from .patience import patiently
from .topics import Topics

__all__ = ["Control", "ControlLoop", "faust_app", "serve"]

T = TypeVar("T")


class Control(Protocol):
    """The pure object of a control service. `reads` come in order per topic, at least once; where several topics have
    news at once, the order of `reads` is the order of their turns."""

    reads: tuple[str, ...]
    follows: tuple[str, ...]

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Rebuild the state from a record that is already there; decide nothing."""
        ...

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send] | Awaitable[list[Send]]:
        """Take one record; what to send. The same record again, also after a restart half-way, ends in the same state.

        Raises Refused for a record that cannot be taken. May be awaitable when a decision starts work (a training job);
        calls never overlap. Nothing may be changed when it raises, for a LogError or OSError makes it come again.
        """
        ...


class ControlLoop:
    """Runs a control on any log. Positions live in memory: a new loop replays from the start, which changes nothing."""

    def __init__(self, control: Control, log: Log, name: str, max_records: int = 500) -> None:
        self.control, self.name = control, name
        self.handled = self.dead = 0
        self._log, self._max_records = log, max_records
        self._rank = {topic: index for index, topic in enumerate(control.reads)}
        self._recalled = False
        self._reader: Reader | None = None
        self._busy = asyncio.Lock()
        self._logger = structlog.get_logger(service=name)

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            await self.turn(wait=0.5)

    async def turn(self, wait: float = 0.0) -> bool:
        """One round: read what is there and handle it; whether anything was."""
        await self.recall()
        if self._reader is None:
            begins = await self._patient(lambda: self._log.begins(self.control.reads))
            self._reader = await self._patient(lambda: self._log.reader(begins))
        reader = self._reader
        batches = await self._patient(lambda: reader.read(self._max_records, wait))
        for batch in sorted(batches, key=lambda b: (self._rank[b.partition.topic], b.partition.number)):
            for at, offset in enumerate(batch.offsets):
                headers = batch.headers[at] if batch.headers else ()
                await self.handle(batch.partition, offset, batch.keys[at], batch.values[at], headers)
        return bool(batches)

    async def recall(self) -> None:
        """Replay what is followed, once, up to its present end."""
        if self._recalled:
            return
        follows = self.control.follows
        begins = await self._patient(lambda: self._log.begins(follows))
        left = {p: end for p, end in (await self._patient(lambda: self._log.ends(follows))).items() if end > begins[p]}
        reader = await self._patient(lambda: self._log.reader({p: begins[p] for p in left}))
        while left:
            batches = await self._patient(lambda: reader.read(10_000, 0.5))
            for batch in sorted(batches, key=lambda b: b.partition):
                for key, value in zip(batch.keys, batch.values, strict=True):
                    self.control.recall(batch.partition.topic, key, value)
                if batch.next >= left.get(batch.partition, 0):
                    left.pop(batch.partition, None)
        await reader.close()
        self._recalled = True

    async def handle(self, source: Partition, offset: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Apply one record and send what follows from it. When this returns the record may be acknowledged."""
        async with self._busy:
            await self.recall()
            try:
                sends = await self._patient(lambda: self._apply(source.topic, key, value))
                if sends:
                    await self._patient(lambda: self._log.send(sends))
                self.handled += 1
                return
            except Gap:
                raise  # bad state, not a bad record
            except Exception as error:
                refusal = _refusal(error)
                why = {"reason": refusal.reason, "cause": str(refusal)}
                self._logger.error("dead-lettered", topic=source.topic, offset=offset, **why)
            aside = Topics.dead_letters(source.topic)
            dead = dead_letter(aside, source, offset, key, value, headers, refusal, self.name)
            await self._patient(lambda: self._log.send([dead]))
            self.dead += 1

    async def _apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        sends = self.control.apply(topic, key, value)
        return await sends if inspect.isawaitable(sends) else sends

    async def _patient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(attempt, self._logger)

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()
            self._reader = None


def _refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    for kind, reason in ((msgspec.ValidationError, "schema"), (msgspec.DecodeError, "decode"), (TooLarge, "too_large")):
        if isinstance(error, kind):
            return Refused(reason, str(error))
    return Refused("failed", f"{type(error).__name__}: {error}")


def faust_app(control: Control, name: str, bootstrap: str, log: Log, folder: str = "/tmp", instance: str = "0") -> Any:
    """A Faust app (0.15.3, at least once) with one agent per topic of `reads`. `name` is the consumer group; `folder`
    is where Faust may write (it keeps no tables). The membership is static under `instance`: a process that comes back
    has its topics at once, and a second process of that name fences the first.

    An agent that raises would acknowledge its record in silence, as would `stream.take` and cancelled iteration:
    therefore acknowledgement is taken out of Faust's hands, and nothing is acknowledged before its consequences are in
    the log.
    """
    import faust

    loop, faults = ControlLoop(control, log, name), asyncio.Queue[Exception]()
    app: Any = faust.App(
        name,
        broker=[f"kafka://{address}" for address in bootstrap.split(",")],
        autodiscover=False,
        datadir=f"{folder}/{name}-faust",
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{name}-{instance or 0}",
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_max_poll_interval=300.0,
        broker_commit_interval=0.2,  # few records; whoever waits for a decision sees by it that there is none
        producer_request_timeout=30.0,
        producer_linger=0.02,
        stream_buffer_maxsize=4096,
        stream_wait_empty=False,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    for topic in control.reads:
        source = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
        app.agent(source, name=f"{name}.{topic}", concurrency=1)(_agent(loop, faults))
    app.penstock_faults = faults
    return app


def _agent(loop: ControlLoop, faults: asyncio.Queue[Exception]) -> Callable[[Any], Awaitable[None]]:
    async def agent(stream: Any) -> None:
        stream.enable_acks = False
        async for event in stream.events():
            m = event.message
            headers = tuple((str(n), bytes(v)) for n, v in _pairs(m.headers))
            try:
                await loop.handle(Partition(m.topic, m.partition), m.offset, m.key, m.value, headers)
            except Exception as error:  # bad state: the process ends, and nothing more is acknowledged
                faults.put_nowait(error)
                await asyncio.Event().wait()
            await stream.ack(event)

    return agent


def _pairs(headers: Any) -> Sequence[tuple[str, bytes]]:
    return list(headers.items()) if isinstance(headers, dict) else list(headers or ())


async def serve(app: Any, stop: asyncio.Event, patience: float = 10.0) -> None:
    """Run a Faust app in this event loop until `stop` is set; an error that the app cannot go on after is raised.

    A Faust app may never finish stopping (an agent that crashes in a loop does that): after `patience` seconds it is
    left.
    """
    await app.start()
    stopped = asyncio.ensure_future(stop.wait())
    failed = asyncio.ensure_future(app.penstock_faults.get())
    crashed = asyncio.ensure_future(app.wait_until_stopped())
    waits = (stopped, failed, crashed)
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        error = failed.result() if failed.done() else app.crash_reason
    finally:
        for waiting in waits:
            waiting.cancel()
        stopping = asyncio.ensure_future(app.stop())
        await asyncio.wait((stopping,), timeout=patience)  # not wait_for: it would wait for the end of its cancellation
        if not stopping.done():
            structlog.get_logger(service=app.conf.id).warning("left", meaning=f"no end within {patience:.0f} s")
    if error is not None:
        raise error
