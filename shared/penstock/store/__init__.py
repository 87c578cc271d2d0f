"""Where a service keeps its state: position, small table and entity records of a shard change in one atomic write.

A *shard* is one partition's share of one service (`feature_store.3`). Its state is

    position   opaque bytes: which records of which sources are included
    table      a few hundred to some thousand small fields, read whole when the shard opens
    records    many values read by key (entity states), each a `head` that is replaced and a `tail` that is appended to
    outbox     opaque bytes: what the last write still has to publish

and a version that every write raises. A writer names the version it saw: if somebody else wrote meanwhile
(a zombie, or the new owner after a rebalance), nothing changes and `Fenced` is raised. So a crash, a zombie and a
replay lose nothing and count nothing twice, without broker transactions.

In memory (`memory`) and on Redis (`redis`), one conformance suite for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["LIVE", "REBUILDING", "STATUS", "Change", "Fenced", "Place", "Saved", "Store", "StoreError"]

Place = tuple[str, bytes]
"""Where a value is: its shard and its key there."""

STATUS, LIVE, REBUILDING = b"", b"live", b"rebuilding"
"""The key of a shard (no entity has it) whose head says how the shard stands: live, or rebuilding: the store has lost writes, and
the shard is not yet where it had been. No head: the store has lost it all, and nobody has noticed, or it never began. A reader
asks for it beside what it reads, in the same round trip, and relies on nothing but LIVE."""


class StoreError(Exception):
    """The store cannot be reached or refuses; transient, so callers pause and retry."""


class Fenced(Exception):
    """Another writer owns this shard now; drop all local state of it and open it anew."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a shard finds when it opens; version 0 and empty fields when it never wrote."""

    version: int = 0
    position: bytes = b""
    outbox: bytes = b""
    table: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Change:
    """One atomic write. `None` in `table` deletes the field. `heads` replace, `tails` append, `cut` empties a key's
    tail before its new tail (compaction). `drops` lose head and tail before anything is put there (expiry). `version` is the
    least that the shard has then: whoever knows that a store has lost writes does not give their versions to others, for it may
    come back with them once more (a backup, an old replica), and would pass for what he holds."""

    position: bytes
    outbox: bytes = b""
    table: Mapping[bytes, bytes | None] = field(default_factory=dict)
    heads: Mapping[bytes, bytes] = field(default_factory=dict)
    tails: Mapping[bytes, bytes] = field(default_factory=dict)
    cut: Sequence[bytes] = ()
    drops: Sequence[bytes] = ()
    version: int = 0

    def touches(self, keys: Sequence[bytes]) -> bool:
        """Whether it changes the head or tail of any of these keys."""
        asked = set(keys)
        return not all(map(asked.isdisjoint, (self.heads, self.tails, self.cut, self.drops)))


class Store(Protocol):
    async def open(self, shard: str) -> Saved: ...

    async def read(self, shard: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """(head, tail) of each key, in order; empty bytes where there is none. One round trip."""
        ...

    async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
        """The heads of places in any shards, in order, and the tails of the first `tailed` of them; empty bytes where there is
        none. One round trip. A place's head and tail are of one write, never of two; so are places of one shard, up to a
        thousand."""
        ...

    async def write(self, shard: str, seen: int, change: Change) -> int:
        """Apply all of it iff the shard's version is still `seen`; return the new version (one more, unless the change wants a
        greater one), or raise Fenced.

        After a StoreError nobody knows whether the write happened. Repeat it: if it did, that raises Fenced, and
        opening anew finds it with its outbox.
        """
        ...

    async def wipe(self, shards: Sequence[str] | None = None) -> None:
        """Forget these shards, or every shard of this project."""
        ...

    async def close(self) -> None: ...
