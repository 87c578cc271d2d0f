"""One round trip to Redis for the values of many places: over connections of redis-py, without its clients.

A client of redis-py costs 20 us a command (its pool looks at the socket, events are counted, answers converted): half of what a
short read takes. Its connections do the rest: address, TLS, login, deadlines, and parsing by hiredis.

Redis may have been restarted while a connection was idle, so what a kept one cannot do is done on the next, at last on a new one.
No answer in time is not asked for again: who asked has waited as long as they said.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as Lost
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import Place, StoreError
from ._redis_names import Names

__all__ = ["AsyncReads", "BlockingReads", "away"]

_KEPT: Final = 64
"""Idle connections that are kept: far more than threads or requests that read at once on one core."""


def away(url: str, error: BaseException) -> StoreError:
    """What Redis said, without the password."""
    where = url.rpartition("@")[2]
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return StoreError(f"Redis at {where} does not answer; look with: penstock doctor")
    said = str(error)[:200] or type(error).__name__  # a refused pipeline repeats every name
    return StoreError(f"Redis at {where} says {said}; look with: penstock doctor")


class _Reads:
    """`pool` is one of redis-py: it knows how connections are made. They are not its own."""

    def __init__(self, url: str, names: Names, pool: Any) -> None:
        self._url, self._names, self._pool = url, names, pool
        self._idle, self._process = deque[Any](maxlen=_KEPT), os.getpid()

    def _kept(self) -> Any:
        """A connection that was used before; None: there is none."""
        if self._process != os.getpid():  # a fork would share sockets with its parent
            self._idle, self._process = deque(maxlen=_KEPT), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _new(self, **settings: Any) -> Any:
        return self._pool.connection_class(**self._pool.connection_kwargs | settings)


class BlockingReads(_Reads):
    """For threads, which may share it; every read has a connection to itself."""

    def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
        """As `Store.gather`."""
        if not places:
            return [], []
        asked = self._names.gathering(places, tailed)
        try:
            return asked.answer(self._answers(asked.commands))
        except (RedisError, OSError) as error:
            if not self._names.crossed(error):
                raise away(self._url, error) from error
        asked = self._names.gathering(places, tailed)  # slot by slot
        return asked.answer(self._answers(asked.commands))

    def _answers(self, packed: list[bytes]) -> list[list[bytes | None]]:
        while True:
            kept = self._kept()
            connection = kept or self._new()
            try:
                connection.send_packed_command(packed)
                found = [connection.read_response() for _ in packed]
            except BaseException as error:
                connection.disconnect()  # what it had still to say would be taken for the next answer
                if kept is None or not isinstance(error, Lost):
                    raise
            else:
                self._idle.append(connection)
                return found

    def close(self) -> None:
        while (connection := self._kept()) is not None:
            connection.disconnect()


class AsyncReads(_Reads):
    """The same for an event loop. One clock for the whole read, of `timeout` seconds: redis-py would start one for each step."""

    def __init__(self, url: str, names: Names, pool: Any, timeout: float) -> None:
        super().__init__(url, names, pool)
        self._timeout = timeout

    async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
        """As `Store.gather`."""
        if not places:
            return [], []
        asked = self._names.gathering(places, tailed)
        try:
            return asked.answer(await self._answers(asked.commands))
        except (RedisError, OSError) as error:
            if not self._names.crossed(error):
                raise away(self._url, error) from error
        asked = self._names.gathering(places, tailed)  # slot by slot
        return asked.answer(await self._answers(asked.commands))

    async def _answers(self, packed: list[bytes]) -> list[list[bytes | None]]:
        while True:
            kept = self._kept()
            connection = kept or self._new(socket_timeout=None)
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.send_packed_command(packed)
                    found = [await connection.read_response() for _ in packed]
            except BaseException as error:
                await connection.disconnect(nowait=True)
                if kept is None or not isinstance(error, Lost):
                    raise
            else:
                self._idle.append(connection)
                return found

    async def close(self) -> None:
        while (connection := self._kept()) is not None:
            await connection.disconnect()
