"""What values are called in Redis, and how a read of many places becomes few commands. Pure.

    penstock:<project>:{<shard>}:meta       hash: version, position, outbox
    penstock:<project>:{<shard>}:table      hash
    penstock:<project>:{<shard>}:h:<key>    head
    penstock:<project>:{<shard>}:t:<key>    tail

The braces are a hash tag: all of a shard lies in one slot of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from . import Place

__all__ = ["Gathering", "Names"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
"""Project and shard names; braces and colons would let keys of two shards meet."""

_REMEMBERED, _SHORT = 100_000, 256
"""Places whose names are remembered, and how long their keys may be: 40 MB at most."""

_TOGETHER: Final = 1_000
"""Places in one MGET: it holds the server for 1 ms at 10 kB each, and others get their turn between two."""


class Names:
    """The names of one project."""

    def __init__(self, project: str) -> None:
        self.project = f"penstock:{_name(project)}:"
        self.heads, self.tails = _Packed(self, b"h:"), _Packed(self, b"t:")
        self.split = False
        """Whether the server is a cluster, which refuses a command over several slots."""

    def place(self, shard: str) -> str:
        return f"{self.project}{{{_name(shard)}}}:"

    def crossed(self, error: BaseException | None) -> bool:
        """Whether a cluster refused a command because its names are of several slots; then the next gathering splits them."""
        found = "hash to the same slot" in str(error)
        self.split |= found
        return found

    def gathering(self, places: Sequence[Place], tailed: int) -> Gathering:
        """See `Store.gather`."""
        return Gathering(self, places, tailed)


class _Packed(dict[Place, bytes]):
    """By place, the name of its head (or tail) as it travels in a command; those that were asked for lately are remembered, as
    making one costs more than Redis needs to look it up."""

    def __init__(self, names: Names, kind: bytes) -> None:
        self._names, self._kind = names, kind

    def __missing__(self, place: Place) -> bytes:
        shard, key = place
        name = self._names.place(shard).encode() + self._kind + key
        packed = b"$%d\r\n%s\r\n" % (len(name), name)
        if len(key) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[place] = packed
        return packed


class Gathering:
    """One read of many places: its MGETs as they travel (`commands`), and how their answers are put together."""

    def __init__(self, names: Names, places: Sequence[Place], tailed: int) -> None:
        self._count, self._tailed = len(places), tailed
        self._blocks = _blocks(places, names.split)
        self.commands = []
        for block in self._blocks:
            asked: Sequence[Place] = places if len(block) == len(places) else [places[at] for at in block]
            some = asked[:tailed] if asked is places else [places[at] for at in block if at < tailed]
            said = b"".join([*map(names.heads.__getitem__, asked), *map(names.tails.__getitem__, some)])
            self.commands.append(b"*%d\r\n$4\r\nMGET\r\n%s" % (1 + len(asked) + len(some), said))

    def answer(self, answers: Sequence[Sequence[bytes | None]]) -> tuple[list[bytes], list[bytes]]:
        """Heads and tails, from one answer for each command."""
        if len(answers) == 1:
            found = [value or b"" for value in answers[0]]
            return found[: self._count], found[self._count :]
        heads, tails = [b""] * self._count, [b""] * self._tailed
        for block, values in zip(self._blocks, answers, strict=True):
            for at, value in zip(block, values, strict=False):
                heads[at] = value or b""
            for at, value in zip([i for i in block if i < self._tailed], values[len(block) :], strict=True):
                tails[at] = value or b""
        return heads, tails


def _blocks(places: Sequence[Place], split: bool) -> list[Sequence[int]]:
    """Which places go into one command; on a cluster those of one shard."""
    if not split:
        return [range(first, min(first + _TOGETHER, len(places))) for first in range(0, len(places), _TOGETHER)]
    by_shard: dict[str, list[int]] = {}
    for at, (shard, _) in enumerate(places):
        by_shard.setdefault(shard, []).append(at)
    return [some[first : first + _TOGETHER] for some in by_shard.values() for first in range(0, len(some), _TOGETHER)]


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a project or shard; use letters, digits, dots, dashes, underscores")
    return name
