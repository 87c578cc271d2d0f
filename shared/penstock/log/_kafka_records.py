"""Kafka's record batches (version 2, KIP-98), encoded by columns: 1 us a record with five headers, where aiokafka's append takes
3.

What aiokafka does with a batch afterwards (sequence numbers, retries, compression) it does with ours as with its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, repeat
from typing import Any, Final

from aiokafka.codec import has_snappy, snappy_encode
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from . import Headers, Numbers, Send

__all__ = ["HEAD", "Records", "bodies", "cut"]

_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, checksum, attributes, last offset, first and newest time, producer, its epoch, first
sequence number, count."""
HEAD: Final = _HEAD.size
_CHECKED_FROM, _CHECKSUM = 21, struct.Struct(">I")
_SNAPPY: Final = 2
_PLACED: Final = 5
"""Bytes that the record's number in its batch may take, beyond `bodies`."""


class _Varints(dict[int, bytes]):
    """Numbers as Kafka writes them: zigzag, seven bits a byte."""

    def __missing__(self, number: int) -> bytes:
        left, found = number << 1 if number >= 0 else (-number << 1) - 1, bytearray()
        while left > 0x7F:
            found.append(left & 0x7F | 0x80)
            left >>= 7
        found.append(left)
        if number < 1 << 16:
            self[number] = bytes(found)
        return bytes(found)


_varint: Final = _Varints()
_varints: Final = _varint.__getitem__


def _sized(text: bytes | None) -> bytes:
    return _varint[-1] if text is None else _varint[len(text)] + text


def _headers(headers: Headers, more: int = 0) -> bytes:
    """Headers as they stand in a record that has `more` of them behind these."""
    return _varint[len(headers) + more] + b"".join(_sized(name.encode()) + _sized(value) for name, value in headers)


def bodies(lane: Sequence[Send], numbers: Numbers | None, places: Sequence[int]) -> list[bytes]:
    """What follows its number in each record. With `numbers`, records have two headers more; `places` are theirs among all."""
    _, keys, values, headers, _ = zip(*lane, strict=True)
    heads: Iterable[bytes] = map(_headers, headers)
    tails: Iterable[bytes] = repeat(b"")
    if numbers is not None:
        kinds = dict(zip(map(id, headers), headers, strict=True))  # few: those of one kind share theirs
        more = _headers((numbers.source,))[1:] + _sized(numbers.name.encode())
        made = {kind: _headers(found, 2) + more for kind, found in kinds.items()}
        heads = map(made.__getitem__, map(id, headers))
        written = list(map(b"%d".__mod__, map(numbers.first.__add__, places)))
        tails = map(bytes.__add__, map(_varints, map(len, written)), written)
    if None in keys or None in values:
        front = [_sized(key) + _sized(value) for key, value in zip(keys, values, strict=True)]
        return list(map(b"".join, zip(front, heads, tails, strict=False)))
    key_sizes, value_sizes = map(_varints, map(len, keys)), map(_varints, map(len, values))
    return list(map(b"".join, zip(key_sizes, keys, value_sizes, values, heads, tails, strict=False)))


def cut(found: Sequence[bytes], limit: int) -> Iterator[Sequence[bytes]]:
    """Bodies in parts that make batches of at most so many bytes; a part has one, whatever its size."""
    first, begin, frame = 0, 0, 2 + 2 * _PLACED
    for at, end in enumerate(accumulate(map(len, found))):
        if at > first and HEAD + end - begin + frame * (at + 1 - first) > limit:
            yield found[first:at]
            first, begin = at, end - len(found[at])
    yield found[first:]


class Records(BatchBuilder):  # type: ignore[misc]
    """A batch for `send_batch`, full from the beginning; `stamp` is the time of all its records (ms since 1970)."""

    def __init__(self, found: Sequence[bytes], stamp: int) -> None:
        self._count, self._stamp = len(found), stamp
        numbered = list(map(b"".join, zip(repeat(b"\0\0"), map(_varints, range(len(found))), found, strict=False)))
        self._body = b"".join(chain.from_iterable(zip(map(_varints, map(len, numbered)), numbered, strict=True)))
        self._producer, self._buffer = (-1, -1, 0), bytearray()

    @staticmethod
    def size_of(body: bytes) -> int:
        """Bytes of a batch of one record."""
        return HEAD + len(_varint[3 + len(body)]) + 3 + len(body)

    def append(self, **_: Any) -> None:
        """There is no room."""

    def close(self) -> None:
        """It is."""

    def closed(self) -> bool:
        return True

    def record_count(self) -> int:
        return self._count

    def size(self) -> int:
        """Bytes before compression."""
        return HEAD + len(self._body)

    def _set_producer_state(self, number: int, epoch: int, sequence: int) -> None:
        self._producer = number, epoch, sequence

    def _build(self) -> bytearray:
        if not self._buffer:
            # A row of 770 bytes costs 1.4 us and leaves 310 bytes; zstd (whose level aiokafka fixes) 3.4 us and 180, lz4 (block
            # by block in Python) 17 us.
            packed = snappy_encode(self._body) if has_snappy() else self._body
            kind, body = (_SNAPPY, packed) if len(packed) < len(self._body) else (0, self._body)
            count, stamp = self._count, self._stamp
            head = _HEAD.pack(0, HEAD - 12 + len(body), -1, 2, 0, kind, count - 1, stamp, stamp, *self._producer, count)
            whole = bytearray(head) + body
            _CHECKSUM.pack_into(whole, _CHECKED_FROM - 4, calc_crc32c(memoryview(whole)[_CHECKED_FROM:]))
            self._buffer, self._body = whole, b""
        return self._buffer
