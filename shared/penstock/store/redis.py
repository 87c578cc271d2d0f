"""The store on Redis (or Valkey). One script per write: it checks the version and changes everything, or nothing.

What keys are called is in `_redis_names`. Names and values travel as blobs that the script cuts up: one argument for each costs
the client five times as much. 4,000 heads of 150 bytes hold the server for 8 ms. Larger writes stay whole, because a half is
worth nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Collection, Iterable, Sequence
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
import redis.retry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from . import Change, Fenced, Place, Saved
from ._redis_names import Names
from ._redis_reads import AsyncReads, BlockingReads, away

__all__ = ["RedisReader", "RedisStore"]

T = TypeVar("T")

_TIMEOUT: Final = 10.0
"""Seconds for one answer: far above a large write (0.1 s), below what people take for working."""

_SCAN: Final = 1_000
"""Keys looked at and deleted per round trip of `wipe`; 1 ms of the server."""

_WRITE: Final = """\
-- One atomic write of a shard. Undeclared keys are built from the prefix; its hash tag keeps all in one cluster slot.
-- KEYS  1 meta, 2 table
-- ARGV  1 version seen, 2 position, 3 outbox, 4 prefix of heads, 5 prefix of tails, then blobs in threes
--       (lengths of name and value as pairs of little-endian 32-bit numbers; names; values):
--       6-8 fields set, 9-11 fields deleted, 12-14 tails cut, 15-17 heads, 18-20 tails, 21-23 dropped (before the others)
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[1]) then
  return {0, version}
end

local function each(first, act)
  local lengths, names, values = ARGV[first], ARGV[first + 1], ARGV[first + 2]
  local name, value = 1, 1
  for at = 1, #lengths, 8 do
    local n, v = struct.unpack('<I4I4', lengths, at)
    act(string.sub(names, name, name + n - 1), string.sub(values, value, value + v - 1))
    name, value = name + n, value + v
  end
end

redis.call('HSET', KEYS[1], 'version', version + 1, 'position', ARGV[2], 'outbox', ARGV[3])
each(21, function(name) redis.call('DEL', ARGV[4] .. name, ARGV[5] .. name) end)
each(6, function(name, value) redis.call('HSET', KEYS[2], name, value) end)
each(9, function(name) redis.call('HDEL', KEYS[2], name) end)
each(12, function(name) redis.call('DEL', ARGV[5] .. name) end)
local pairs, n = {}, 0  -- a thousand heads a call: half the price of one each
local function set()
  if n > 0 then redis.call('MSET', unpack(pairs, 1, n)) end
  n = 0
end
each(15, function(name, value)
  pairs[n + 1], pairs[n + 2] = ARGV[4] .. name, value
  n = n + 2
  if n == 2000 then set() end
end)
set()
each(18, function(name, value) redis.call('APPEND', ARGV[5] .. name, value) end)
return {1, version + 1}
"""


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
            retry=Retry(NoBackoff(), 0),
        )
        self._script: Any = self._redis.register_script(_WRITE)
        self._reads = AsyncReads(url, self._names, self._redis.connection_pool, timeout)

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
        place = self._names.place(shard)
        sets = {name: value for name, value in change.table.items() if value is not None}
        drops = [name for name, value in change.table.items() if value is None]
        arguments: list[Any] = [seen, change.position, change.outbox, place + "h:", place + "t:"]
        arguments += _blobs(sets.keys(), sets.values())
        arguments += _blobs(drops, [b""] * len(drops))
        arguments += _blobs(change.cut, [b""] * len(change.cut))
        arguments += _blobs(change.heads.keys(), change.heads.values())
        arguments += _blobs(change.tails.keys(), change.tails.values())
        arguments += _blobs(change.drops, [b""] * len(change.drops))
        done, version = await self._said(self._script(keys=[place + "meta", place + "table"], args=arguments))
        if not done:
            raise Fenced(f"shard {shard} is at version {version}, this writer saw {seen}")
        return int(version)

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
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=redis.retry.Retry(NoBackoff(), 0)
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


def _blobs(names: Collection[bytes], values: Iterable[bytes]) -> tuple[bytes, bytes, bytes]:
    values = list(values)
    lengths = [0] * (2 * len(values))
    lengths[::2] = map(len, names)
    lengths[1::2] = map(len, values)
    return struct.pack(f"<{len(lengths)}I", *lengths), b"".join(names), b"".join(values)
