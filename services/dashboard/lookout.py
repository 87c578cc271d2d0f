"""The lookout: reads the topics once a second for everybody who looks at the page, and keeps the newest message.

However many look, and however slowly, there is one reader and one message; whoever is slow gets the newest one next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import structlog

from penstock.log import Gap, Log, LogError
from penstock.picture import Picture
from penstock.reviewing.panel import Panel
from penstock.topics import Topics

from .flow import Flow, flow_of
from .shown import models_of

__all__ = ["Lookout", "Seen"]

EVERY = 1.0
"""Seconds between two looks, and so between two messages."""
OVER = 10
"""Looks that a rate is taken over."""
SILENCE = 5.0
"""Seconds after which a waiting browser hears that we are still there, though the log does not answer."""


class Seen(msgspec.Struct, frozen=True):
    """Everything the page shows. Events of type `flow` have `flow` only: nothing else has changed."""

    project: str
    flow: Flow
    models: msgspec.Raw | None = None
    """list[Shown]"""


class Lookout:
    """`clock` is wall-clock seconds, for rates only."""

    def __init__(self, topics: Topics, log: Log, clock: Callable[[], float]) -> None:
        self._topics, self._log, self._clock = topics, log, clock
        self.picture = Picture(topics)
        self.panel = Panel(topics)
        self.viewers = 0
        self.number = 0
        """Looks so far."""
        self._trouble = ""
        self._caught_up = False
        self._counts: deque[tuple[float, dict[str, int]]] = deque(maxlen=OVER + 1)
        self._news = asyncio.Event()
        self._models: tuple[tuple[Picture, int], msgspec.Raw] | None = None
        self._logger = structlog.get_logger(service="dashboard")

    def missing(self) -> str:
        """What this service still waits for; empty when the page is up to date."""
        if self._trouble:
            return self._trouble
        return "" if self._caught_up else "it has not read the topics to their end yet"

    async def look(self) -> None:
        """Read what is new. A log that is away is said on the page and asked again at the next look."""
        try:
            await self.picture.watch(self._log)
            await self.panel.watch(self._log)
        except Gap as gap:  # the topics are not what they were: fold them anew, from what they hold now
            self._trouble_is(f"{gap}; reading the topics anew")
            await self.picture.close()
            self.picture, self._caught_up = Picture(self._topics), False
            self._counts.clear()
        except LogError as error:
            self._trouble_is(str(error))
        else:
            self._trouble_is("")
            self._caught_up = self._caught_up or not self.picture.behind
            self._counts.append((self._clock(), dict(self.picture.counts)))
        self._tell()

    def _trouble_is(self, said: str) -> None:
        if said and said != self._trouble:
            self._logger.warning("waiting", cause=said)
        self._trouble = said

    def _tell(self) -> None:
        self.number += 1
        self._news.set()
        self._news = asyncio.Event()

    def rates(self) -> dict[str, float]:
        """Records a second by stage over the last looks; nothing before there are two."""
        if len(self._counts) < 2:
            return {}
        (start, before), (end, after) = self._counts[0], self._counts[-1]
        return {name: max(n - before.get(name, 0), 0) / (end - start) for name, n in after.items()} if end > start else {}

    @property
    def state(self) -> tuple[Picture, int]:
        """Changes when a topic said something."""
        return self.picture, self.picture.read

    def flow(self) -> Flow:
        return flow_of(self.picture, self.rates(), self._trouble)

    def message(self, models: bool = True) -> bytes:
        """The newest state as JSON; models are encoded once for all who ask."""
        shown = None
        if models:
            if self._models is None or self._models[0] != self.state:
                said = msgspec.json.encode(models_of(self.picture, self._topics.project))
                self._models = self.state, msgspec.Raw(said)
            shown = self._models[1]
        return msgspec.json.encode(Seen(self._topics.project.name, self.flow(), shown))

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events without end: `picture` at first and whenever a topic said something, `flow` otherwise."""
        yield b"retry: 2000\n\n"
        self.viewers += 1
        try:
            number: int = 0
            told: tuple[Picture, int] | None = None
            while True:
                while self.number == number:
                    try:
                        async with asyncio.timeout(SILENCE):
                            await self._news.wait()
                    except TimeoutError:
                        yield b": still waiting for the log\n\n"
                number, before, told = self.number, told, self.state
                kind = b"flow" if told == before else b"picture"
                yield b"event: %b\ndata: %b\n\n" % (kind, self.message(models=kind == b"picture"))
        finally:
            self.viewers -= 1

    async def run(self) -> None:
        """Look until cancelled. What must not happen ends it, and is told by /readyz and the page."""
        try:
            while True:
                await self._patient(asyncio.ensure_future(self.look()))
                await asyncio.sleep(EVERY)
        except Exception as error:
            self._trouble_is(f"the dashboard has stopped reading: {type(error).__name__}: {error}")
            self._tell()
            raise

    async def _patient(self, looking: asyncio.Future[None]) -> None:
        """Wait for a look, and say so while it gets nowhere: a client may try for half a minute before it gives up."""
        began, read = self._clock(), self.picture.read
        try:
            while not (await asyncio.wait({looking}, timeout=SILENCE))[0]:
                if self.picture.read == read:
                    self._trouble_is(f"no answer for {self._clock() - began:.0f} s; look with: penstock doctor")
                read = self.picture.read
                self._tell()
            looking.result()
        finally:
            looking.cancel()

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Looks while the application runs."""
        task = asyncio.create_task(self.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
            with suppress(asyncio.CancelledError, Exception):  # a client whose broker is gone raises what its own tasks do
                await self.picture.close()
                await self.panel.close()
