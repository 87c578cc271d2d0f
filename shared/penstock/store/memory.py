"""The store in memory: the same atomic, fenced writes in one process. A product of its own, for embedded runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import Change, Fenced, Place, Saved

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Shard:
    version: int = 0
    position: bytes = b""
    outbox: bytes = b""
    table: dict[bytes, bytes] = field(default_factory=dict)
    heads: dict[bytes, bytes] = field(default_factory=dict)
    tails: dict[bytes, bytes] = field(default_factory=dict)


class MemoryStore:
    """Shards in memory.

    >>> import asyncio
    >>> async def turn() -> list[tuple[bytes, bytes]]:
    ...     store = MemoryStore()
    ...     saved = await store.open("feature_store.3")
    ...     await store.write("feature_store.3", saved.version, Change(position=b"17", heads={b"JFK": b"42"}))
    ...     return await store.read("feature_store.3", [b"JFK", b"LGA"])
    >>> asyncio.run(turn())
    [(b'42', b''), (b'', b'')]
    """

    def __init__(self) -> None:
        self._shards: dict[str, _Shard] = {}

    async def open(self, shard: str) -> Saved:
        found = self._shards.get(shard)
        if found is None:
            return Saved()
        return Saved(found.version, found.position, found.outbox, dict(found.table))

    async def read(self, shard: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        found = self._shards.get(shard) or _Shard()
        return [(found.heads.get(key, b""), found.tails.get(key, b"")) for key in keys]

    async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
        nothing = _Shard()
        found = [(self._shards.get(shard, nothing), key) for shard, key in places]
        return [s.heads.get(key, b"") for s, key in found], [s.tails.get(key, b"") for s, key in found[:tailed]]

    async def write(self, shard: str, seen: int, change: Change) -> int:
        found = self._shards.get(shard) or _Shard()
        if found.version != seen:
            raise Fenced(f"shard {shard} is at version {found.version}, this writer saw {seen}")
        self._shards[shard] = found
        found.version = max(seen + 1, change.version)
        found.position, found.outbox = change.position, change.outbox
        for name, value in change.table.items():
            if value is None:
                found.table.pop(name, None)
            else:
                found.table[name] = value
        for key in change.drops:
            found.heads.pop(key, None)
        found.heads.update(change.heads)
        for key in (*change.drops, *change.cut):
            found.tails.pop(key, None)
        for key, value in change.tails.items():
            found.tails[key] = found.tails.get(key, b"") + value
        return found.version

    async def wipe(self, shards: Sequence[str] | None = None) -> None:
        for shard in list(self._shards) if shards is None else shards:
            self._shards.pop(shard, None)

    async def close(self) -> None:
        """Nothing to let go of; what was written stays for the next user of this object."""
