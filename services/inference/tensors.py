"""Tensors over HTTP: the JSON form of the Open Inference Protocol v2, strictly. Pure.

One input `X`, FP32 [rows, inputs] in the order of the model, null for missing (our extension: JSON has no NaN). One
output `score`, FP64 [rows]: the probability of True. Specified in kserve/open-inference-protocol, inference_rest.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from penstock.errors import Refused
from penstock.inputs import Matrix

__all__ = ["INPUT", "OUTPUT", "InferRequest", "infer_answer", "infer_request", "metadata"]

INPUT, OUTPUT = "X", "score"
_LARGEST = float(np.finfo(np.float32).max)


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | list[float | None] | None]
    """Flat, or nested by rows."""


class _Wanted(msgspec.Struct, frozen=True):
    name: str


class InferRequest(msgspec.Struct, frozen=True):
    """The body of `infer`; parameters and other fields are ignored."""

    inputs: list[_Tensor]
    id: str | None = None
    outputs: list[_Wanted] | None = None


_request = msgspec.json.Decoder(InferRequest).decode


def infer_request(body: bytes, width: int) -> tuple[InferRequest, Matrix]:
    """The request and its rows. Refused (decode, schema, range) in one sentence."""
    try:
        asked = _request(body)
    except msgspec.ValidationError as error:
        raise Refused("schema", f"not an infer request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("decode", f"not JSON: {error}") from None
    names = [tensor.name for tensor in asked.inputs]
    if names != [INPUT]:
        raise Refused("schema", f"the model takes one input {INPUT!r}, not {names}")
    for wanted in asked.outputs or ():
        if wanted.name != OUTPUT:
            raise Refused("schema", f"there is no output {wanted.name!r}; the model gives {OUTPUT!r}")
    return asked, _matrix(asked.inputs[0], width)


def _matrix(tensor: _Tensor, width: int) -> Matrix:
    if tensor.datatype != "FP32":
        raise Refused("schema", f"input {INPUT!r} is FP32, not {tensor.datatype!r}")
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != width or shape[0] < 0:
        raise Refused("schema", f"input {INPUT!r} has shape [-1, {width}], not {shape}")
    values: Sequence[Any] = tensor.data
    rows = [row for row in values if isinstance(row, list)]
    if rows:
        if len(rows) < len(values) or any(len(row) != width for row in rows):
            raise Refused("schema", f"input {INPUT!r} is nested, and not every row has {width} values")
        values = [value for row in rows for value in row]
    if len(values) != shape[0] * width:
        raise Refused("schema", f"input {INPUT!r} has {len(values)} values, but its shape {shape} says {shape[0] * width}")
    wide = np.array(values, np.float64).reshape(shape)
    if (np.abs(wide) > _LARGEST).any():
        raise Refused("range", f"input {INPUT!r} has a value that FP32 cannot hold")
    return wide.astype(np.float32)


def infer_answer(asked: InferRequest, model: str, version: str, scores: Sequence[float]) -> dict[str, Any]:
    """The body of a good answer."""
    answer: dict[str, Any] = {"model_name": model, "model_version": version}
    if asked.id is not None:
        answer["id"] = asked.id
    output = {"name": OUTPUT, "shape": [len(scores)], "datatype": "FP64", "data": list(scores)}
    return answer | {"outputs": [output]}


def metadata(model: str, versions: list[str], width: int) -> dict[str, Any]:
    """What the protocol says of a model."""
    return {
        "name": model,
        "versions": versions,
        "platform": "penstock",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, width]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP64", "shape": [-1]}],
    }
