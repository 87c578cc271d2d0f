"""Breadth: how many different inputs each key has asked about of late. Who copies a model by asking it (Tramèr et al. 2016) needs
many thousands; who uses it asks about what happens.

The door opens an `Asking` for a request, or refuses it (429) where the key is beyond its bound; the application counts there what
it is asked. Rates count requests, whatever is in them; this counts rows, each different one once, however they are spread over
requests, ids and times.

Counts are kept in this process: of several, each allows as much. A window moves in TILES steps. A tile is a HyperLogLog
(Flajolet, Fusy, Gandouet, Meunier 2007) of 1,024 registers, standard error 3.3 %, so a key takes 10 kB however much it asks;
tiles add by the greater of each register. (The sketch of `windows` lies in words for compiled code; this one takes bytes, one at
a time, and knows its count at any moment.)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from contextvars import ContextVar
from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge

from ..runtime.refusals import Failed

if TYPE_CHECKING:
    from .rates import Spent

__all__ = ["ASKING", "Asking", "Breadth", "Distinct"]

REGISTERS: Final = 1_024
_BITS: Final = 10
_ALPHA: Final = 0.7213 / (1 + 1.079 / REGISTERS)
TILES: Final = 8
KEYS: Final = 2_000
"""Keys that are counted at once; those that asked longest ago are forgotten."""

_REFUSED: Final = Counter("penstock_extraction_refused_total", "Requests refused as their key asked about too many inputs.")
_SHARE: Final = Gauge("penstock_extraction_share", "The most that a key has of the different inputs that it may ask about.")


class Distinct:
    """How many different values there were, about.

    >>> found = Distinct()
    >>> for number in range(5_000):
    ...     found.add(b"%d" % (number % 1_000))
    >>> abs(found.count - 1_000) < 100
    True
    """

    __slots__ = ("_empty", "_sum", "registers")

    def __init__(self) -> None:
        self.registers = bytearray(REGISTERS)
        self._empty, self._sum = REGISTERS, float(REGISTERS)

    def add(self, value: bytes) -> None:
        """Take a value."""
        bits = int.from_bytes(blake2b(value, digest_size=8).digest())
        at, rank = bits >> (64 - _BITS), 64 - _BITS + 1 - (bits & ((1 << (64 - _BITS)) - 1)).bit_length()
        old = self.registers[at]
        if rank > old:
            self.registers[at] = rank
            self._empty -= not old
            self._sum += 2.0**-rank - 2.0**-old

    def fold(self, other: Distinct) -> None:
        """Take all that another one has."""
        self.registers = bytearray(map(max, self.registers, other.registers))
        self._empty, self._sum = self.registers.count(0), sum(2.0**-rank for rank in self.registers)

    @property
    def count(self) -> float:
        """Linear counting while registers are empty and it is the better one, then HyperLogLog."""
        found = _ALPHA * REGISTERS * REGISTERS / self._sum
        return REGISTERS * log(REGISTERS / self._empty) if self._empty and found <= 2.5 * REGISTERS else found


class _Window:
    """What one key asked about: tiles by their number, and all together."""

    __slots__ = ("tiles", "whole")

    def __init__(self) -> None:
        self.tiles: OrderedDict[int, Distinct] = OrderedDict()
        self.whole = Distinct()

    def at(self, tile: int) -> Distinct:
        """The tile that is filled now; those that the window has left are dropped."""
        found = self.tiles.get(tile)
        if found is None:
            found = self.tiles[tile] = Distinct()
            while next(iter(self.tiles)) <= tile - TILES:
                self.tiles.popitem(last=False)
            self.whole = Distinct()
            for each in self.tiles.values():
                self.whole.fold(each)
        return found


class Asking:
    """One request of a key, which counts what it asks about; `after`: when its key may ask again if it may not now."""

    __slots__ = ("_begun", "_most", "_tile", "_window", "after", "who")

    def __init__(self, who: str, window: _Window, tile: Distinct, most: int, after: int) -> None:
        self.who, self.after, self._window, self._tile, self._most, self._begun = who, after, window, tile, most, False

    def about(self, inputs: Iterable[bytes]) -> None:
        """Count inputs, each as bytes that are the same whenever it is. Failed (429) where the bound was reached since the door
        let this request in: who opens a thousand and sends their bodies later gains nothing."""
        tile, whole = self._tile, self._window.whole  # as of now: the window may have moved since
        if not self._begun and whole.count >= self._most:
            _REFUSED.inc()
            raise Failed(
                429, f"this key has asked about {self._most:,} different inputs; ask again in {self.after} s", self.after
            )
        self._begun = True
        for value in inputs:
            tile.add(value)
            whole.add(value)


ASKING: ContextVar[Asking | None] = ContextVar("asking", default=None)
"""The request that is answered; None where nothing bounds it."""


class Breadth:
    """Counts for all keys; `bound` is written as a rate, such as 20000/day."""

    def __init__(self, bound: str) -> None:
        from .rates import rate_of

        rate = rate_of(bound)
        self.most, self.seconds = rate.amount, rate.get_expiry()
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        _SHARE.set_function(lambda: self.share(time.time()))

    def asking(self, who: str, now: float) -> Asking | Spent:
        """A request of a key at `now` seconds; Spent where it has asked about as much as it may. So a request may go beyond the
        bound, by no more than it may hold, and the next one is refused."""
        window = self._windows.get(who)
        if window is None:
            window = self._windows[who] = _Window()
            if len(self._windows) > KEYS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(who)
        step = self.seconds / TILES
        tile = window.at(int(now / step))
        after = max(1, round((next(iter(window.tiles)) + TILES) * step - now + 0.5))
        if window.whole.count >= self.most:
            from .rates import Spent

            _REFUSED.inc()
            return Spent(self.most, self.seconds, after)
        return Asking(who, window, tile, self.most, after)

    def share(self, now: float) -> float:
        """The most that a key has of its bound, of those that asked within the window that ends at `now`."""
        last = int(now / (self.seconds / TILES)) - TILES
        lately = [window for window in list(self._windows.values()) if next(reversed(window.tiles), last) > last]
        return max((window.whole.count for window in lately), default=0.0) / self.most
