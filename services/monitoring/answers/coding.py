"""Coding: a label as a whole number, so that the ledger keeps it at the head of an entry.

    bits 0-1    a label of yes or no, or that there is none (see ledger.py); 0 for every other label
    bits 2-7    the rank of its source
    bits 8-     which number (its 64 bits) or which class (crc32 of its name, so that classes may be declared in another order)

Yes and no, by far the most, take 9 bytes with their deadline; others 17.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import isfinite
from zlib import crc32

from penstock.label import GREATEST, Label, Truth

__all__ = ["LABEL", "RANK", "RANKS", "STATE", "Coding"]

STATE, RANK, RANKS = 3, 2, 0xFC
LABEL = ~RANKS
"""What of the number is the label: all but the rank."""

_HEAD, _PARKED = struct.Struct(">Bq"), struct.Struct(">Bqq")
_LONG, _LONG_PARKED = struct.Struct(">BqQ"), struct.Struct(">BqqQ")
_NUMBER, _BITS = struct.Struct(">d"), struct.Struct(">Q")


class Coding:
    """How the labels of a model are coded.

    `head` and `parked` put a number together with its times, `unhead` and `unparked` take it apart; `size` is that of a head,
    `task` the kind of label.
    """

    def __init__(self, label: Label | None = None, task: str = "binary") -> None:
        self._classes = {crc32(name.encode()): name for name in label.classes} if label else {}
        self.task = label.task if label else task
        self.head: Callable[[int, int], bytes] = _HEAD.pack
        self.unhead: Callable[[bytes], tuple[int, int]] = _HEAD.unpack_from
        self.parked: Callable[[int, int, int], bytes] = _PARKED.pack
        self.unparked: Callable[[bytes], tuple[int, int, int]] = _PARKED.unpack
        self.size = _HEAD.size
        if self.task != "binary":
            self.head, self.unhead, self.size = _packed, _unpacked, _LONG.size
            self.parked, self.unparked = _packed_parked, _unpacked_parked

    def code(self, label: Truth, rank: int = 0) -> int | None:
        """A label of a source of `rank`; None for what is no label of this model."""
        if self.task == "binary":
            return int(bool(label)) | rank << RANK
        if self.task == "multiclass":
            code = crc32(str(label).encode())
            return code << 8 | rank << RANK if self._classes.get(code) == label else None
        number = float(label) + 0.0  # one zero, not two
        if not isfinite(number) or abs(number) > GREATEST:
            return None
        return int(_BITS.unpack(_NUMBER.pack(number))[0]) << 8 | rank << RANK

    def label(self, code: int) -> Truth | None:
        """The label that was coded; None for a class that is no longer declared."""
        if self.task == "binary":
            return bool(code & STATE)
        if self.task == "multiclass":
            return self._classes.get(code >> 8)
        return float(_NUMBER.unpack(_BITS.pack(code >> 8))[0])


def _packed(code: int, deadline: int) -> bytes:
    return _LONG.pack(code & 0xFF, deadline, code >> 8)


def _unpacked(entry: bytes) -> tuple[int, int]:
    low, deadline, high = _LONG.unpack_from(entry)
    return low | high << 8, deadline


def _packed_parked(code: int, time: int, expiry: int) -> bytes:
    return _LONG_PARKED.pack(code & 0xFF, time, expiry, code >> 8)


def _unpacked_parked(value: bytes) -> tuple[int, int, int]:
    low, time, expiry, high = _LONG_PARKED.unpack(value)
    return low | high << 8, time, expiry
