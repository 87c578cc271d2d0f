"""The control lane on Kafka: a control as a Faust app (0.15.3, at least once), one agent per topic that it reads.

An agent that raises would acknowledge its record in silence, as would `stream.take` and cancelled iteration: therefore
acknowledgement is taken out of Faust's hands, and nothing is acknowledged before its consequences are in the log.

Agents and consumers may die or hang one by one while the process looks healthy. So ready means more than being alive:
the state is rebuilt, every topic has its agent and its partition, and what the group has committed reaches the end of
the log or moves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from ..log import Log, LogError, Partition
from ..log.security import PLAIN, Security
from .control import Control, ControlLoop

__all__ = ["Agents"]

LOOK = 1.0
"""Seconds between two looks at how far the agents are."""


class Agents:
    """A control at work. `name` is the consumer group; `folder` is where Faust may write (it keeps no tables).

    The membership is static under `instance`: a process that comes back has its topics at once, and a second process of
    that name fences the first. `longest` is how many seconds one record may take before its agent counts as hung.
    """

    def __init__(
        self,
        control: Control,
        name: str,
        bootstrap: str,
        log: Log,
        folder: Path,
        instance: str = "0",
        longest: float = 60.0,
        security: Security = PLAIN,
    ) -> None:
        import faust

        self.loop = ControlLoop(control, log, name)
        self._log, self._reads, self._longest = log, control.reads, longest
        self._alive: set[str] = set()
        self._stands: dict[Partition, tuple[int, float]] = {}
        """Where each partition with work left was seen first, and when."""
        self._missing = "it has not joined its group yet"
        self._fault: BaseException | None = None
        self._logger = structlog.get_logger(service=name)
        folder.mkdir(parents=True, exist_ok=True)
        self.app: Any = faust.App(
            name,
            broker=[f"kafka://{address}" for address in bootstrap.split(",")],
            broker_credentials=_credentials(security),
            autodiscover=False,
            datadir=str(folder / f"{name}-faust"),
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=f"{name}-{instance}",
            broker_session_timeout=10.0,
            broker_max_poll_interval=300.0,
            broker_commit_interval=0.2,  # few records; whoever waits for a decision sees by it that there is none
            stream_wait_empty=False,  # an agent that stopped holds its record for ever: nobody may wait for it
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
        )
        self.app.on_partitions_assigned.connect(self._assigned, weak=False)
        for topic in control.reads:
            source = self.app.topic(topic, key_type=bytes, value_type=bytes)
            self.app.agent(source, name=f"{name}.{topic}", concurrency=1)(self._agent(topic))

    async def run(self, stop: asyncio.Event, patience: float = 10.0) -> None:
        """Work in this event loop until `stop` is set; an error that the agents cannot go on after is raised.

        A Faust app may never finish stopping (an agent that crashes in a loop does that): after `patience` seconds it is
        left.
        """
        working, stopped = asyncio.ensure_future(self._work()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            working.cancel()
            stopped.cancel()
            stopping = asyncio.ensure_future(self.app.stop())
            await asyncio.wait((stopping,), timeout=patience)  # not wait_for: it would wait for the end of its cancellation
            if not stopping.done():
                self._logger.warning("left", meaning=f"no end within {patience:.0f} s")

    def missing(self) -> str:
        """What keeps it from its work, in words; empty: nothing."""
        if self._fault is not None:
            return f"it has stopped: {self._fault}"
        dead = [topic for topic in self._reads if topic not in self._alive]
        return f"no agent works on {', '.join(dead)}" if dead and not self._missing else self._missing

    async def _work(self) -> None:
        await self.app.start()
        while self._fault is None and not self.app.should_stop:
            await self._look(time.monotonic())
            await asyncio.sleep(LOOK)
        error = self._fault or self.app.crash_reason
        if error is not None:
            raise error

    async def _look(self, now: float) -> None:
        held = {Partition(*place) for place in self.app.consumer.assignment()}
        if absent := [topic for topic in self._reads if Partition(topic, 0) not in held]:
            self._missing = f"it does not hold {', '.join(absent)} (yet)"
            return
        if not self.loop.recalled:
            self._missing = f"it reads back {', '.join(self.loop.control.follows)}"
            await self.loop.recall()
        try:
            begins, ends = await self._log.begins(self._reads), await self._log.ends(self._reads)
        except LogError as error:
            self._missing = str(error)
            return
        committed: Mapping[Any, int | None] = self.app.consumer._committed_offset  # what fault 596 of Faust stops
        known = {Partition(*place): at for place, at in committed.items() if at is not None}
        behind = {p: (known.get(p, begins[p]), end) for p, end in ends.items() if known.get(p, begins[p]) < end}
        self.loop.meters.stands(now, ends, {p: known.get(p, begins[p]) for p in ends})
        before, self._stands = self._stands, {}
        hung = []
        for p, (at, end) in behind.items():
            self._stands[p] = seen = before[p] if p in before and before[p][0] == at else (at, now)
            if now - seen[1] > self._longest:
                hung.append(f"{p.topic}/{p.number} stands at {at} of {end} for {now - seen[1]:.0f} s")
        if hung and not self._missing:
            self._logger.error("hung", cause="; ".join(hung), todo="restart this process; it goes on from there")
        self._missing = "; ".join(hung)

    async def _assigned(self, *_: Any, **__: Any) -> None:
        """Another process may have held the topics until now, and decided: read back what came since."""
        self.loop.recalled = False

    def _agent(self, topic: str) -> Callable[[Any], Awaitable[None]]:
        async def agent(stream: Any) -> None:
            self._alive.add(topic)
            stream.enable_acks = False
            offset = None
            try:
                async for event in stream.events():
                    m = event.message
                    offset = m.offset
                    headers = m.headers.items() if isinstance(m.headers, dict) else m.headers or ()
                    said = tuple((str(name), bytes(value)) for name, value in headers)
                    await self.loop.handle(Partition(m.topic, m.partition), m.offset, m.key, m.value, said)
                    await stream.ack(event)
            except Exception as error:  # bad state: the process ends, and nothing more is acknowledged
                todo = "mend what the cause says; this process ends and, started again, goes on with this record"
                self._logger.error("stopped", topic=topic, offset=offset, cause=f"{type(error).__name__}: {error}", todo=todo)
                self._fault = error
                await asyncio.Event().wait()
            finally:
                self._alive.discard(topic)

        return agent


def _credentials(security: Security) -> Any:
    """As Faust takes it; None for a plain broker."""
    import faust

    context = security.context()
    if security.sasl:
        mechanism, name, password = security.mechanism, security.username, security.password
        return faust.SASLCredentials(username=name, password=password, mechanism=mechanism, ssl_context=context)
    return faust.SSLCredentials(context) if context is not None else None
