"""One atomic write of a shard to Redis: a transaction that is off when anybody else has written since.

    WATCH meta, HGET meta version                      once a connection: is the shard where the writer saw it?
    MULTI, ..., EXEC, WATCH meta, HGET meta version    each write, in one round trip; EXEC does nothing when `meta` has changed

So each write finds its shard watched by the one before, on a connection that the shard has to itself. The same in a script holds
the server three times as long, most of it to hand names and values to Lua and back. Commands are put together here, as they
travel: redis-py takes some 2 us for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from redis.asyncio.connection import DefaultParser
from redis.exceptions import RedisError

from . import Change, Fenced
from ._redis_names import Names
from ._redis_reads import away

__all__ = ["Writes"]

_MULTI, _EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
_VERSION: Final = b"version"


class Writes:
    """The connections of the shards that this process writes; `pool` is one of redis-py, which knows how they are made."""

    def __init__(self, url: str, names: Names, pool: Any, timeout: float) -> None:
        self._url, self._names, self._pool, self._timeout = url, names, pool, timeout
        self._lines: dict[str, _Line] = {}

    async def write(self, shard: str, seen: int, change: Change) -> int:
        """As `Store.write`."""
        line = self._lines.get(shard)
        if line is None:
            settings = self._pool.connection_kwargs | {"socket_timeout": None, "parser_class": _Answers}
            line = self._lines[shard] = _Line(self._pool.connection_class(**settings), self._names.place(shard).encode())
        async with line.lock:
            try:
                async with asyncio.timeout(self._timeout):
                    found = await line.write(seen, change)
            except BaseException as error:
                await line.end()  # what it had still to say would be taken for the next answer
                if isinstance(error, RedisError | OSError):
                    raise away(self._url, error) from error
                raise
        if found is not None:
            raise Fenced(f"shard {shard} is at version {found}, this writer saw {seen}")
        return max(seen + 1, change.version)

    async def close(self) -> None:
        while self._lines:
            await self._lines.popitem()[1].end(nowait=False)


class _Answers(DefaultParser):  # type: ignore[valid-type, misc]
    """All but QUEUED, which every command of a transaction is answered by: a connection takes 2 us for each."""

    async def read_response(self, *given: Any, **named: Any) -> Any:
        while (found := await super().read_response(*given, **named)) == b"QUEUED":
            pass
        return found


class _Line:
    """A shard's connection. `watched` is the version that it watches, None for none."""

    def __init__(self, connection: Any, place: bytes) -> None:
        self.lock = asyncio.Lock()
        self._connection, self._place = connection, place
        self._watched: int | None = None
        self._watch = [_command(b"WATCH", place + b"meta"), _command(b"HGET", place + b"meta", _VERSION)]

    async def write(self, seen: int, change: Change) -> int | None:
        """None when it is done; else the version that was found in place of `seen`, and nothing has changed. Raises what Redis
        refused of it: mostly before anything has changed, but a value of another kind only when the rest is done."""
        if self._watched != seen or not await self._fit():
            await self.end()  # which ends watching, too
            await self._connection.send_packed_command(self._watch)
            if (found := await self._watching()) != seen:
                return found
        await self._connection.send_packed_command(
            [_MULTI, *_commands(self._place, max(seen + 1, change.version), change), _EXEC, *self._watch]
        )
        await self._connection.read_response()
        done = await self._connection.read_response()
        found = await self._watching()
        if done is None:
            return found
        if any(issubclass(kind, RedisError) for kind in set(map(type, done))):  # what comes after it in a transaction was done
            raise next(answer for answer in done if isinstance(answer, RedisError))
        return None

    async def _fit(self) -> bool:
        """Whether nothing has come since the last answer, nor the connection's end."""
        try:
            return not await self._connection.can_read_destructive()
        except (RedisError, OSError):
            return False

    async def _watching(self) -> int:
        await self._connection.read_response()
        self._watched = found = int(await self._connection.read_response() or 0)
        return found

    async def end(self, nowait: bool = True) -> None:
        self._watched = None
        await self._connection.disconnect(nowait=nowait)


def _commands(place: bytes, version: int, change: Change) -> list[bytes]:
    """What a change is to Redis, in order."""
    meta, table, heads, tails = (place + kind for kind in (b"meta", b"table", b"h:", b"t:"))
    sets = {name: value for name, value in change.table.items() if value is not None}
    state = {_VERSION: b"%d" % version, b"position": change.position, b"outbox": change.outbox}
    found = [_command(b"HSET", meta, pairs=state)]
    if change.drops:
        found.append(_command(b"DEL", names=[prefix + name for prefix in (heads, tails) for name in change.drops]))
    if sets:
        found.append(_command(b"HSET", table, pairs=sets))
    if len(sets) < len(change.table):
        found.append(_command(b"HDEL", table, names=change.table.keys() - sets.keys()))
    if change.cut:
        found.append(_command(b"DEL", names=[tails + name for name in change.cut]))
    if change.heads:
        found.append(_command(b"MSET", pairs=change.heads, prefix=heads))
    return [*found, *_pairs(change.tails, tails, b"*3\r\n$6\r\nAPPEND\r\n")]


def _command(
    *words: bytes, names: Collection[bytes] = (), pairs: Mapping[bytes, bytes] | None = None, prefix: bytes = b""
) -> bytes:
    pairs = pairs or {}
    begin = b"*%d\r\n" % (len(words) + len(names) + 2 * len(pairs))
    return b"".join((begin, *(b"$%d\r\n%b\r\n" % (len(word), word) for word in (*words, *names)), *_pairs(pairs, prefix)))


def _pairs(pairs: Mapping[bytes, bytes], prefix: bytes, before: bytes = b"") -> Iterable[bytes]:
    """Names, with what they all begin with, and values."""
    n = len(prefix)
    return [b"%b$%d\r\n%b%b\r\n$%d\r\n%b\r\n" % (before, n + len(k), prefix, k, len(v), v) for k, v in pairs.items()]
