"""The datatypes of the Open Inference Protocol v2, as numpy arrays: from and to JSON, from and to raw bytes. Pure.

JSON      numbers, flat or nested, row by row; null is NaN (JSON has none) for FP16, FP32, FP64; BYTES are strings
binary    little-endian, row by row; BOOL is a byte 0 or 1; a BYTES element is a length (4 bytes) and as many bytes of UTF-8

Nothing is coerced: 1.0 is no integer, true no number, 300 no UINT8. Specified in kserve/open-inference-protocol,
inference_rest.md, and triton-inference-server/server, extension_binary_data.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from penstock.errors import Refused
from penstock.scoring.signature import DATATYPES, Array

__all__ = ["DATATYPES", "Array", "from_binary", "from_json", "to_binary", "to_json"]

_BEYOND: Final = {"FP16": 65_520.0, "FP32": 3.4028235677973366e38}
"""The least number that rounds to infinity: the largest finite one and half a step (IEEE 754)."""

_WIDEST: Final = 64
"""Dimensions that numpy can hold."""
_MOST: Final = 1 << 40
"""Elements of an array, dimensions of size 0 left out: numpy bounds these even where there are none."""


def _element(datatype: str) -> Any:
    """What one element is in JSON, as msgspec checks it."""
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return bool
    if datatype == "FP64":  # msgspec refuses by itself what a double cannot hold
        return float | None
    if datatype in _BEYOND:
        return Annotated[float, msgspec.Meta(gt=-_BEYOND[datatype], lt=_BEYOND[datatype])] | None
    bounds = np.iinfo(DATATYPES[datatype])
    if datatype == "UINT64":  # msgspec compares with numbers below 2^63 only; numpy refuses what lies beyond 2^64
        return Annotated[int, msgspec.Meta(ge=0)]
    return Annotated[int, msgspec.Meta(ge=int(bounds.min), le=int(bounds.max))]


@lru_cache(maxsize=256)  # 12 datatypes, some depths
def _decoder(datatype: str, depth: int) -> Any:
    """Decodes lists in lists, `depth` deep."""
    wanted: Any = _element(datatype)
    for _ in range(depth):
        wanted = list[wanted]
    return msgspec.json.Decoder(wanted).decode


def from_json(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Array:
    """The elements of input `name`, JSON `data` flat or nested as `shape` says. Refused (schema, range) in one sentence."""
    count, nested = _count(name, shape), len(shape) > 1 and data.lstrip()[1:].lstrip()[:1] == b"["
    try:
        values = _decoder(datatype, len(shape) if nested else 1)(data)
    except msgspec.ValidationError as error:
        raise Refused("schema", f"input {name!r} is not {datatype}{' nested by its shape' if nested else ''}: {error}") from None
    if nested:
        values = _flat(name, shape, values)
    if len(values) != count:
        raise Refused("schema", f"input {name!r} has {len(values)} values, but its shape {list(shape)} says {count}")
    try:
        return np.array(values, DATATYPES[datatype]).reshape(shape)
    except OverflowError:
        raise Refused("range", f"input {name!r} has a value that {datatype} cannot hold") from None


def _count(name: str, shape: Sequence[int]) -> int:
    """How many elements a shape has; Refused when no array can have it."""
    count = math.prod(shape)
    if len(shape) > _WIDEST or (count or math.prod(size for size in shape if size)) > _MOST:
        raise Refused("schema", f"input {name!r} has a shape that no array has: {list(shape[:8])}")
    return count


def _flat(name: str, shape: Sequence[int], values: list[Any]) -> list[Any]:
    """Lists in lists as one, each level as long as the shape says."""
    for at, size in enumerate(shape[1:], 1):
        if any(len(inner) != size for inner in values):
            raise Refused("schema", f"input {name!r} is nested, and not every list of dimension {at} has {size} values")
        values = list(itertools.chain.from_iterable(values))
    return values


def from_binary(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Array:
    """The elements of input `name`, raw. Refused (schema) when the bytes are not as many as `shape` says."""
    count = _count(name, shape)
    if datatype == "BYTES":
        texts = _texts(name, count, data)  # before there is room for as many as the shape says
        values = np.empty(count, object)
        values[:] = texts
        return values.reshape(shape)
    dtype = DATATYPES[datatype]
    if len(data) != count * dtype.itemsize:
        said = f"its shape {list(shape)} of {datatype} says {count * dtype.itemsize}"
        raise Refused("schema", f"input {name!r} has {len(data)} bytes, but {said}")
    if datatype == "BOOL":
        flags = np.frombuffer(data, np.uint8)
        if (flags > 1).any():
            raise Refused("schema", f"input {name!r} has a BOOL that is neither 0 nor 1")
        return flags.view(dtype).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


def _texts(name: str, count: int, data: bytes | memoryview) -> list[str]:
    found: list[str] = []
    at, size = 0, len(data)
    while at < size and len(found) <= count:
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > size or end > size:
            raise Refused("schema", f"input {name!r} ends within its element {len(found)}")
        try:
            found.append(str(data[at + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise Refused("schema", f"input {name!r} has an element {len(found)} that is not UTF-8") from None
        at = end
    if len(found) != count or at != size:
        raise Refused("schema", f"input {name!r} has not the {count} elements that its shape says")
    return found


def to_json(array: Array) -> list[Any]:
    """Flat, row by row. NaN and the infinities become null when they are written."""
    return array.ravel().tolist()


def to_binary(array: Array) -> bytes:
    if array.dtype == object:
        texts = [str(value).encode() for value in array.ravel()]
        return b"".join(part for text in texts for part in (len(text).to_bytes(4, "little"), text))
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
