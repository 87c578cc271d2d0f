"""The store on Redis (or Valkey). One transaction per write: it changes everything, or nothing when another has written.

What keys are called is in `_redis_names`, how a write travels in `_redis_writes`, a read in `_redis_reads`. 4,000 heads of 150
bytes hold the server for 5 ms. Larger writes stay whole, because a half is worth nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
import redis.retry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from . import Change, Place, Saved
from ._redis_names import Names
from ._redis_reads import AsyncReads, BlockingReads, away
from ._redis_writes import Writes

__all__ = ["RedisReader", "RedisStore"]

T = TypeVar("T")

_TIMEOUT: Final = 10.0
"""Seconds for one answer: far above a large write (0.1 s), below what people take for working."""

_PIECE: Final = 256 << 10
"""Bytes taken from a socket at a time: states of many entities are megabytes, and pieces of 64 KiB, redis-py's own, cost a read
of them a sixth more."""

_SCAN: Final = 1_000
"""Keys looked at and deleted per round trip of `wipe`; 1 ms of the server."""


class RedisStore:
    """Shards of one project in Redis at `url`.

    The online store is read by others meanwhile; they see a write whole or not at all.
    """

    def __init__(self, url: str, project: str, timeout: float = _TIMEOUT) -> None:
        self._url, self._names = url, Names(project)
        # No repetition below us: callers repeat, and know that a repeated write may find itself done.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_read_size=_PIECE,
            retry=Retry(NoBackoff(), 0),
        )
        self._reads = AsyncReads(url, self._names, self._redis.connection_pool, timeout)
        self._writes = Writes(url, self._names, self._redis.connection_pool, timeout)

    async def open(self, shard: str) -> Saved:
        place = self._names.place(shard)
        both = self._redis.pipeline(transaction=True)
        both.hmget(place + "meta", "version", "position", "outbox")
        both.hgetall(place + "table")
        (version, position, outbox), table = await self._said(both.execute())
        return Saved(int(version or 0), position or b"", outbox or b"", table)

    async def position(self, shard: str) -> bytes:
        """What the shard's last write said is included; empty where there was none."""
        return await self._said(self._redis.hget(self._names.place(shard) + "meta", "position")) or b""

    async def read(self, shard: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        heads, tails = await self.gather([(shard, key) for key in keys], len(keys))
        return list(zip(heads, tails, strict=True))

    async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
        return await self._reads.gather(places, tailed)

    async def write(self, shard: str, seen: int, change: Change) -> int:
        return await self._writes.write(shard, seen, change)

    async def wipe(self, shards: Sequence[str] | None = None) -> None:
        cursor, places = 0, [self._names.project] if shards is None else [self._names.place(shard) for shard in shards]
        match = self._names.project + "*" if len(places) != 1 else places[0] + "*"
        while True:
            cursor, keys = await self._said(self._redis.scan(cursor, match=match, count=_SCAN))
            if keys := [key for key in keys if key.startswith(tuple(place.encode() for place in places))]:
                await self._said(self._redis.unlink(*keys))
            if cursor == 0:
                return

    async def close(self) -> None:
        await self._reads.close()
        await self._writes.close()
        await self._redis.aclose()

    async def _said(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            raise away(self._url, error) from error


class RedisReader:
    """Reads states of one project without an event loop; made to be kept, safe to share between threads.

    `timeout` is seconds without a sign of Redis after which a read raises StoreError.
    """

    def __init__(self, url: str, project: str, timeout: float = _TIMEOUT) -> None:
        self._url, self._names = url, Names(project)
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_read_size=_PIECE,
            retry=redis.retry.Retry(NoBackoff(), 0),
        )
        self._reads = BlockingReads(url, self._names, self._redis.connection_pool)

    def position(self, shard: str) -> bytes:
        """As `RedisStore.position`."""
        try:
            return self._redis.hget(self._names.place(shard) + "meta", "position") or b""
        except (RedisError, OSError) as error:
            raise away(self._url, error) from error

    def fetch(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
        """As `Store.gather`."""
        return self._reads.gather(places, tailed)

    def close(self) -> None:
        self._reads.close()
        self._redis.close()
