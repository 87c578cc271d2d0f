"""Every datatype of the protocol keeps its values through JSON and through raw bytes, and what does not fit is refused."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.errors import Refused
from penstock.services.inference.open_inference.datatypes import DATATYPES, Array, from_binary, from_json, to_binary, to_json

NUMBERS = [name for name in DATATYPES if name != "BYTES"]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def finite(datatype: str) -> st.SearchStrategy[Array]:
    elements: dict[str, Any] = {"allow_infinity": False, "allow_nan": True} if datatype.startswith("FP") else {}
    return arrays.arrays(DATATYPES[datatype], SHAPES, elements=elements or None)


def same(one: Array, other: Array) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    )


@pytest.mark.parametrize("datatype", NUMBERS)
@given(data=st.data())
def test_numbers_survive_json_flat_and_nested_and_raw(datatype: str, data: st.DataObject) -> None:
    array = data.draw(finite(datatype))
    flat, nested = msgspec.json.encode(to_json(array)), msgspec.json.encode(array.tolist())
    assert same(from_json("x", datatype, array.shape, flat), array)
    if array.size:  # an empty list does not say how it is nested
        assert same(from_json("x", datatype, array.shape, nested), array)
    assert same(from_binary("x", datatype, array.shape, to_binary(array)), array)


@given(st.lists(st.text(max_size=5), max_size=12))
def test_texts_survive(texts: list[str]) -> None:
    array = np.array([*texts, None], object)[:-1]
    assert from_json("x", "BYTES", array.shape, msgspec.json.encode(to_json(array))).tolist() == texts
    raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert to_binary(array) == raw
    assert from_binary("x", "BYTES", array.shape, raw).tolist() == texts


@pytest.mark.parametrize("datatype", DATATYPES)
@given(raw=st.binary(max_size=60), shape=SHAPES)
def test_raw_bytes_of_any_kind_are_elements_or_refused(datatype: str, raw: bytes, shape: tuple[int, ...]) -> None:
    try:
        found = from_binary("x", datatype, shape, raw)
    except Refused:
        return
    assert found.shape == shape
    assert to_binary(found) == raw


@pytest.mark.parametrize("datatype", DATATYPES)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    ),
    shape=SHAPES,
)
def test_json_of_any_kind_is_elements_or_refused(datatype: str, value: Any, shape: tuple[int, ...]) -> None:
    try:
        found = from_json("x", datatype, shape, json.dumps(value).encode())
    except Refused:
        return
    assert found.shape == shape
    assert found.dtype == DATATYPES[datatype]
    assert found.dtype.kind != "f" or not np.isinf(found).any()


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("BOOL", "1"), ("BOOL", "null"), ("INT8", "128"), ("INT8", "-129"), ("UINT8", "-1"), ("UINT8", "1.0"),
        ("INT64", "1e3"), ("INT64", str(2**63)), ("UINT64", str(2**64)),
        ("INT32", "true"), ("INT32", "null"), ("FP16", "65520"), ("FP32", "3.5e38"),
        ("FP64", "1e999"), ("FP32", '"1"'), ("FP32", "false"), ("BYTES", "1"), ("BYTES", "null"),
    ],
)  # fmt: skip
def test_nothing_is_coerced(datatype: str, value: str) -> None:
    with pytest.raises(Refused):
        from_json("x", datatype, [1], f"[{value}]".encode())


def test_the_largest_numbers_fit() -> None:
    assert from_json("x", "FP16", [1], b"[65519]").tolist() == [65504.0]
    assert from_json("x", "FP32", [1], b"[3.4028235e38]").tolist() == [float(np.finfo(np.float32).max)]
    assert from_json("x", "UINT64", [1], str(2**64 - 1).encode().join([b"[", b"]"])).tolist() == [2**64 - 1]
    assert math.isnan(from_json("x", "FP64", [1], b"[null]").tolist()[0])


def test_a_shape_of_other_size_than_its_data_is_refused_at_once() -> None:
    for shape in ([2**62, 2**62], [3], [0], [1] * 70, [2**70, 0], [2**33, 2**33, 0]):
        with pytest.raises(Refused):
            from_json("x", "FP32", shape, b"[1, 2]")
        with pytest.raises(Refused):
            from_binary("x", "FP32", shape, bytes(7))
        with pytest.raises(Refused):
            from_binary("x", "BYTES", shape, struct.pack("<I", 2**31))
