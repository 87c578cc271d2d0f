"""Infer requests and answers of the Open Inference Protocol v2, in JSON and with binary tensors. Pure.

    request body --infer_request--> Asked: arrays by input, outputs wanted and in which form
    arrays by output --infer_answer--> body, and the length of its JSON part when binary tensors follow it

A binary request is JSON of as many bytes as the header Inference-Header-Content-Length says, then the raw inputs in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.errors import Refused
from penstock.scoring.signature import DATATYPES, Array, Signature, Tensor

from .datatypes import from_binary, from_json, to_binary, to_json

__all__ = [
    "Asked",
    "Parameters",
    "Signature",
    "Tensor",
    "contents",
    "infer_answer",
    "infer_request",
    "input_of",
    "outputs_of",
    "rows_of",
]

Parameters = dict[str, str | int | float | bool]

_NEITHER: Final = ("classification", "shared_memory_region")
"""Parameters of extensions that we do not have: to ignore them would give a wrong answer."""


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: Parameters | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: Parameters | None = None


class _Given(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    shape: Sequence[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


class _Answer(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Given]
    id: str | None = None


class Asked(msgspec.Struct, gc=False):
    """A request that fits the model. `rows` is the size of the first dimension, 1 where that is not rows."""

    feeds: dict[str, Array]
    rows: int
    wanted: tuple[str, ...]
    binary: frozenset[str]
    """Outputs to be given as raw bytes."""
    id: str | None


def contents(asked: Asked) -> Iterator[bytes]:
    """The values of each row as bytes, equal where all of them are."""
    arrays = [array for _, array in sorted(asked.feeds.items())]
    for row in range(asked.rows):
        of = (array[row : row + 1] if array.shape[:1] == (asked.rows,) else array for array in arrays)
        yield b"\0".join(repr(each.tolist()).encode() if each.dtype == object else each.tobytes() for each in of)


_request = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode
_NOTHING: Final[frozenset[str]] = frozenset()


def infer_request(body: bytes, signature: Signature, head: int | None = None) -> Asked:
    """The request for a model of this signature; `head` is the length of its JSON part when there is a binary part.

    Refused (decode, schema, range) in one sentence.
    """
    if head is not None and not 0 <= head <= len(body):
        raise Refused("decode", f"Inference-Header-Content-Length is {head}, but the body has {len(body)} bytes")
    try:
        asked = _request(body if head is None else body[:head])
    except msgspec.ValidationError as error:
        raise Refused("schema", f"not an infer request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("decode", f"not JSON: {error}") from None
    raw = None if head is None else _Rest(memoryview(body)[head:])
    feeds = {given.name: _array(given, signature, raw) for given in asked.inputs}
    rows = rows_of([given.name for given in asked.inputs], feeds, signature)
    if raw is not None and raw.left:
        raise Refused("schema", f"{raw.left} bytes follow the last binary input")
    if asked.outputs or asked.parameters:
        wanted, binary = _wanted(asked, signature)
        return Asked(feeds, rows, wanted, binary, asked.id)
    return Asked(feeds, rows, signature.names, _NOTHING, asked.id)


def rows_of(names: Sequence[str], feeds: Mapping[str, Array], signature: Signature) -> int:
    """How many rows a request has whose inputs have these names; Refused (schema) when they are not those of the model."""
    if len(feeds) != len(names) or len(feeds) != len(signature.inputs):
        takes = ", ".join(repr(tensor.name) for tensor in signature.inputs)
        given = ", ".join(repr(name[:80]) for name in names[:20]) or "none"
        raise Refused("schema", f"the model takes one each of {takes}; the request has: {given}")
    if not signature.batched:
        return 1
    if len(feeds) > 1:
        sizes = {array.shape[0] for array in feeds.values()}
        if len(sizes) > 1:
            raise Refused("schema", f"inputs have different numbers of rows: {', '.join(map(str, sorted(sizes)))}")
    return int(feeds[names[0]].shape[0])


class _Rest:
    """What of the binary part has not been taken yet."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    @property
    def left(self) -> int:
        return len(self._data)

    def take(self, name: str, size: Any) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._data):
            raise Refused("schema", f"input {name!r} has binary_data_size {size!r}, but {len(self._data)} bytes are left")
        found, self._data = self._data[:size], self._data[size:]
        return found


def input_of(name: str, datatype: str, shape: Sequence[int], parameters: Parameters | None, signature: Signature) -> None:
    """See whether the model takes such an input; Refused (schema) says why it does not."""
    for tensor in signature.inputs:
        if tensor.name == name:
            break
    else:
        names = ", ".join(repr(tensor.name) for tensor in signature.inputs)
        raise Refused("schema", f"there is no input {name[:80]!r}; the model takes {names}")
    if datatype != tensor.datatype:
        known = datatype in DATATYPES
        raise Refused("schema", f"input {name!r} is {tensor.datatype}, not {datatype[:20]!r}{'' if known else ' (unknown)'}")
    if not tensor.fits(shape):
        raise Refused("schema", f"input {name!r} has shape {tensor.shape}, not {list(shape[:20])}")
    if parameters:
        _refuse_others(name, parameters)


def _array(given: _Input, signature: Signature, raw: _Rest | None) -> Array:
    """The elements of one input, checked against what the model takes."""
    name, datatype = given.name, given.datatype
    input_of(name, datatype, given.shape, given.parameters, signature)
    size = given.parameters.get("binary_data_size") if given.parameters else None
    if size is None:
        if not len(given.data):
            raise Refused("schema", f"input {name!r} has no data")
        return from_json(name, datatype, given.shape, bytes(given.data))
    if raw is None:
        raise Refused("schema", f"input {name!r} is binary, and the header Inference-Header-Content-Length is absent")
    if len(given.data):
        raise Refused("schema", f"input {name!r} has both data and binary_data_size")
    return from_binary(name, datatype, given.shape, raw.take(name, size))


def _wanted(asked: _Request, signature: Signature) -> tuple[tuple[str, ...], frozenset[str]]:
    """The outputs to give, and which of them as raw bytes."""
    every = _flag("the request", asked.parameters, "binary_data_output")
    if not asked.outputs:
        return signature.names, frozenset(signature.names) if every else _NOTHING
    binary = set()
    wanted = outputs_of([(output.name, output.parameters) for output in asked.outputs], signature)
    for output in asked.outputs:
        if _flag(f"output {output.name!r}", output.parameters, "binary_data", every):
            binary.add(output.name)
    return wanted, frozenset(binary)


def outputs_of(asked: Sequence[tuple[str, Parameters | None]], signature: Signature) -> tuple[str, ...]:
    """The outputs that are asked for, by name with parameters; none means all. Refused (schema): what the model does not give."""
    for name, parameters in asked:
        if name not in signature.names:
            names = ", ".join(map(repr, signature.names))
            raise Refused("schema", f"there is no output {name[:80]!r}; the model gives {names}")
        if parameters:
            _refuse_others(name, parameters)
    wanted = tuple(name for name, _ in asked)
    if len(set(wanted)) < len(wanted):
        raise Refused("schema", f"an output is asked for twice: {', '.join(map(repr, wanted[:20]))}")
    return wanted or signature.names


def _flag(whose: str, parameters: Parameters | None, name: str, default: bool = False) -> bool:
    value = (parameters or {}).get(name, default)
    if type(value) is not bool:
        raise Refused("schema", f"{name} of {whose} is true or false, not {value!r:.80}")
    return value


def _refuse_others(name: str, parameters: Parameters) -> None:
    for other in _NEITHER:
        if other in parameters:
            raise Refused("schema", f"{name!r} asks for {other}, an extension that this server does not have")


def infer_answer(
    asked: Asked, model: str, version: str, signature: Signature, found: Sequence[Array]
) -> tuple[bytes, int | None]:
    """The body of a good answer with the outputs that were wanted, and the length of its JSON part when raw ones follow it."""
    given, raw, datatypes = [], [], signature.datatypes
    for name, array in zip(asked.wanted, found, strict=True):
        if name in asked.binary:
            raw.append(to_binary(array))
            given.append(_Given(name, array.shape, datatypes[name], {"binary_data_size": len(raw[-1])}))
        else:
            given.append(_Given(name, array.shape, datatypes[name], None, to_json(array)))
    head = _encode(_Answer(model, version, given, asked.id))
    return (b"".join([head, *raw]), len(head)) if raw else (head, None)
