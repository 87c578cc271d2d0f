"""What goes between a server and the process of a function: frames over a socket. No pickle, no code: msgpack of these records.

frame     length (8 bytes, big endian), msgpack
server    Source, once; then a Call at a time
process   Ready or Fault, once; then Gave, Refusal or Fault for each call
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from .signature import DATATYPES, Array

__all__ = ["Call", "Fault", "Gave", "Packed", "Ready", "Refusal", "Source", "packed", "receive", "send", "unpacked"]

LARGEST: Final = 256 << 20
"""Bytes of a frame: what a request may have (some MiB), many times."""
_LENGTH: Final = struct.Struct(">Q")


class Packed(msgspec.Struct, array_like=True):
    """An array: its elements row by row, little-endian, or as texts."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes | list[str]


class Source(msgspec.Struct, tag=True):
    """What the process is to run: the function `name` of a Python file, whose text is sent along, so that a process that takes
    another's place runs the same."""

    file: str
    module: str
    path: list[str]
    """Where modules are looked for."""
    name: str
    text: bytes
    memory: int
    """Bytes of address space that the process may have."""
    seconds: float
    """That a call may take; the process ends itself some time after."""


class Call(msgspec.Struct, tag=True):
    arrays: list[Packed]


class Ready(msgspec.Struct, tag=True):
    """What the function takes and gives: name -> datatype and shape."""

    takes: dict[str, tuple[str, list[int]]]
    gives: dict[str, tuple[str, list[int]]]
    batched: bool
    code: str
    """Its fingerprint, see `penstock.fingerprint`."""


class Gave(msgspec.Struct, tag=True):
    arrays: list[Packed]


class Refusal(msgspec.Struct, tag=True):
    """The function does not take these values."""

    what: str


class Fault(msgspec.Struct, tag=True):
    """The function failed: in a sentence, and where, for the log."""

    what: str
    traceback: str = ""
    why: str = ""
    """The sentence with what the function raised, and at which line of its file: for its owner, not for who asks."""


Message = Source | Call | Ready | Gave | Refusal | Fault

_encode = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder(Message).decode


def send(to: socket.socket, message: Message, until: float | None = None) -> None:
    """Send a message. OSError where the other end is gone, TimeoutError when it is not through by `until` (monotonic); ValueError
    for what cannot be sent: then nothing of it was."""
    data = _encode(message)
    if len(data) > LARGEST:
        raise ValueError(f"{len(data) >> 20} MiB are more than the {LARGEST >> 20} of a message")
    to.settimeout(_left(until))
    to.sendall(_LENGTH.pack(len(data)) + data)


def receive(of: socket.socket, until: float | None = None) -> Message:
    """The next message. EOFError where the other end is gone or talks nonsense, TimeoutError when it is not whole by `until`."""
    (size,) = _LENGTH.unpack(_exactly(of, _LENGTH.size, until))
    if size > LARGEST:
        raise EOFError(f"a frame of {size} bytes")
    try:
        message: Message = _decode(_exactly(of, size, until))
    except msgspec.MsgspecError as error:
        raise EOFError(str(error)) from None
    return message


def _exactly(of: socket.socket, size: int, until: float | None) -> bytearray:
    found = bytearray(size)
    view = memoryview(found)
    while view:
        of.settimeout(_left(until))
        try:
            got = of.recv_into(view)
        except ConnectionError:
            got = 0
        if not got:
            raise EOFError("it has gone")
        view = view[got:]
    return found


def _left(until: float | None) -> float | None:
    return None if until is None else max(1e-3, until - time.monotonic())


def packed(arrays: Mapping[str, Array], datatypes: Mapping[str, str]) -> list[Packed]:
    """Arrays by name, of the datatypes that are said."""
    return [
        Packed(name, datatypes[name], list(array.shape), _texts(array) if datatypes[name] == "BYTES" else _raw(array))
        for name, array in arrays.items()
    ]


def _texts(array: Array) -> list[str]:
    return list(map(str, array.ravel().tolist()))


def _raw(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def unpacked(of: Iterable[Packed]) -> dict[str, Array]:
    """Arrays by name, which may be written to. ValueError where one is not what it says."""
    found = {}
    for one in of:
        dtype = DATATYPES.get(one.datatype)
        if dtype is None or any(size < 0 for size in one.shape) or isinstance(one.data, list) != (one.datatype == "BYTES"):
            raise ValueError(f"{one.name} is no {one.datatype}")
        if isinstance(one.data, list):
            array = np.empty(len(one.data), object)
            array[:] = one.data
        else:
            array = np.frombuffer(bytearray(one.data), dtype)
        found[one.name] = array.reshape(one.shape)
    return found
