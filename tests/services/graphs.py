"""ONNX models of a line or two, for tests of what serves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from penstock.scoring.signature import DATATYPES

TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip
assert list(TYPES) == list(DATATYPES)

Value = tuple[str, int, Sequence[int | str | None]]


def graph(nodes: Sequence[Any], inputs: Sequence[Value], outputs: Sequence[Value], constants: Sequence[Any] = ()) -> bytes:
    """A model of these nodes; values are name, type and shape."""
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        list(constants),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def scaled(by: float, width: int = 3) -> bytes:
    """y = x * by, FP32 [rows, width]."""
    factor = numpy_helper.from_array(np.array(by, np.float32), "by")
    value: Sequence[int | str | None] = ["n", width]
    return graph(
        [helper.make_node("Mul", ["x", "by"], ["y"])],
        [("x", TensorProto.FLOAT, value)],
        [("y", TensorProto.FLOAT, value)],
        [factor],
    )


def echo(names: Sequence[str] = tuple(TYPES)) -> bytes:
    """Gives back one [rows, 2] of every datatype named: in FP32, out as FP32_back."""
    return graph(
        [helper.make_node("Identity", [name], [f"{name}_back"]) for name in names],
        [(name, TYPES[name], ["n", 2]) for name in names],
        [(f"{name}_back", TYPES[name], ["n", 2]) for name in names],
    )


def centred() -> bytes:
    """y = x - mean of x over the rows, FP32 [rows, 1]: rows see each other."""
    return graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("y", TensorProto.FLOAT, ["n", 1])],
    )


def picked() -> bytes:
    """y = table[i] of a table of two rows, i INT64 [rows]: other indices are out of its bounds."""
    table = numpy_helper.from_array(np.array([10.0, 20.0], np.float32), "table")
    return graph(
        [helper.make_node("Gather", ["table", "i"], ["y"], axis=0)],
        [("i", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        [table],
    )


def classifier(zipmap: bool, labels: Sequence[Any] = (0, 1)) -> tuple[Any, bytes]:
    """A fitted classifier of three columns, and as ONNX."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    drawn = np.random.default_rng(0)
    rows = drawn.normal(size=(200, 3)).astype(np.float32)
    fitted = LogisticRegression().fit(rows, np.array(labels)[(rows[:, 0] * len(labels)).astype(int) % len(labels)])
    exported = to_onnx(
        fitted, initial_types=[("X", FloatTensorType([None, 3]))], options={id(fitted): {"zipmap": zipmap}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )  # fmt: skip
    return fitted, bytes(exported.SerializeToString())


def pointing_outside() -> bytes:
    """A model whose weights lie in another file."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3], bytes(12), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 3])],
        [("y", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
