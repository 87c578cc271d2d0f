"""A spill: records that wait in a file for a log that is away. Append-only, in order, whole after a crash.

    frame        length (u32), CRC-32 (u32), kind (1 byte), body; big endian
    kind R       records, msgpack [[topic, key, value, headers, partition], ...]
    kind M       a mark, msgpack [head, ends]: what lies before byte `head` is out, and `ends` ({topic: {partition: offset}}) are
                 positions before which nothing that is not out can be

Written by batch, each followed by an fsync. A tail that a crash tore is cut when the file is opened: its answers had not been
given. Marks need no fsync: a lost one says too little, never too much. When all is out the file is emptied, so its size is
bounded by what comes while the log is away.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from penstock.errors import SettingError
from penstock.log import Partition, Send
from penstock.runtime.refusals import SOON, Failed

__all__ = ["Full", "Spill"]

_FRAME: Final = struct.Struct(">IIB")
_RECORDS, _MARK = b"R"[0], b"M"[0]
_MOST: Final = 64 << 20
"""Bytes of a frame; a longer length was never written."""

_encode = msgspec.msgpack.Encoder().encode
_records = msgspec.msgpack.Decoder(list[Send]).decode
_mark = msgspec.msgpack.Decoder(tuple[int, dict[str, dict[int, int]]]).decode


class Full(Failed):
    """There is no room for these records."""

    def __init__(self, what: str = "there is no room for more records") -> None:
        super().__init__(503, what, SOON)


class Spill:
    """The file `<folder>/records.spill`, which one process at a time may hold. `most`: bytes that it may have.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> spill = Spill(folder, 1 << 20)
    >>> spill.append([Send("answers", b"1", b"{}")])
    >>> spill.sync()
    >>> spill.close()
    >>> again = Spill(folder, 1 << 20)
    >>> again.read(), again.empty
    (([Send(topic='answers', key=b'1', value=b'{}', headers=(), partition=None)], 40), False)
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.path, self._most = folder / "records.spill", most
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingError(
                f"{self.path} cannot be written: {error.strerror}", "correct PENSTOCK_DATA: penstock doctor"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise SettingError(
                f"{self.path} belongs to another process that runs",
                "name each process by PENSTOCK_INSTANCE, or give each a PENSTOCK_DATA of its own",
            ) from None
        self.ends: dict[Partition, int] = {}
        """Positions before which nothing that waits here can be in the log."""
        self._head = self._end = self._read = 0
        self.cut = self._recover()
        """Bytes of a torn tail that were cut off when the file was opened."""
        where = os.open(folder, os.O_RDONLY)
        os.fsync(where)  # the file's name, too, is to outlive a crash
        os.close(where)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._head >= self._end

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def append(self, records: Sequence[Send]) -> None:
        """Write records behind the others; they are safe after `sync`. Raises Full; OSError where the disk refuses. After either
        nothing of them is in the file."""
        if not self._end:
            self._write(_MARK, self._marked(), self._most)
        self._write(_RECORDS, _encode(records), self._most)

    def mark(self, head: int, ends: Mapping[Partition, int]) -> None:
        """Everything before byte `head` (as `read` said it) is out; `ends` are where the log's partitions end since. OSError is
        of no consequence."""
        self._head, self.ends = head, {**self.ends, **ends}
        if self.empty:
            os.ftruncate(self._file, 0)
            self._head = self._end = self._read = 0
        else:
            self._write(_MARK, self._marked(), 2 * self._most)

    def _marked(self) -> bytes:
        nested: dict[str, dict[int, int]] = {}
        for (topic, number), end in self.ends.items():
            nested.setdefault(topic, {})[number] = end
        return _encode([self._head, nested])

    def sync(self) -> None:
        """Return when what was appended outlives a crash. May be called in another thread."""
        os.fsync(self._file)

    def cut_back(self, size: int) -> None:
        """Take back what was appended since the file had this size, as nobody knows whether it would outlive a crash; but not
        what has been read: whoever did so will say by its place that it is out."""
        size = max(size, self._read)
        if size < self._end:
            self._end, self._head = size, min(self._head, size)
            os.ftruncate(self._file, size)

    def read(self, most: int = 2_000) -> tuple[list[Send], int]:
        """The oldest records that wait, some `most` at a time, and the byte after them; none where nothing waits."""
        found, at = list[Send](), self._head
        while at < self._end and len(found) < most:
            kind, body, at = self._frame(at, self._end)
            if kind == _RECORDS:
                found += _records(body)
        self._read = at
        return found, at

    def close(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)  # a sync in a thread would hold it on
        os.close(self._file)

    def _write(self, kind: int, body: bytes, most: int) -> None:
        frame = _FRAME.pack(len(body), zlib.crc32(body), kind) + body
        if self._end + len(frame) > most or len(body) > _MOST:
            raise Full
        written = 0
        try:
            while written < len(frame):
                written += os.pwrite(self._file, frame[written:], self._end + written)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(frame)

    def _frame(self, at: int, end: int) -> tuple[int, bytes, int]:
        """Kind and body of the frame at a byte, and where the next begins; ValueError where none is whole."""
        head = os.pread(self._file, _FRAME.size, at)
        if len(head) < _FRAME.size:
            raise ValueError("torn")
        size, checksum, kind = _FRAME.unpack(head)
        if at + _FRAME.size + size > end or size > _MOST:
            raise ValueError("torn")
        body = os.pread(self._file, size, at + _FRAME.size)
        if len(body) != size or zlib.crc32(body) != checksum or kind not in (_RECORDS, _MARK):
            raise ValueError("torn")
        return kind, body, at + _FRAME.size + size

    def _recover(self) -> int:
        """Find the end and the newest mark; how many bytes at the end were no whole frames."""
        size = os.fstat(self._file).st_size
        while self._end < size:
            try:
                kind, body, after = self._frame(self._end, size)
                if kind == _MARK:
                    self._head, nested = _mark(body)
                    self.ends = {Partition(topic, number): end for topic, of in nested.items() for number, end in of.items()}
            except (ValueError, msgspec.MsgspecError):
                break
            self._end = after
        os.ftruncate(self._file, self._end)
        return size - self._end
