"""A graph knows what it takes and gives, whether rows may be put together, and what it will not open."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.services import graphs

from penstock.errors import PenstockError, Refused
from penstock.scoring.graph import Graph
from penstock.scoring.signature import DATATYPES


def test_it_is_known_by_its_bytes() -> None:
    data = graphs.scaled(2.0)
    assert Graph(data).sha256 == hashlib.sha256(data).hexdigest()


def test_every_datatype_goes_through() -> None:
    graph = Graph(graphs.echo())
    assert {tensor.name: tensor.datatype for tensor in graph.signature.inputs} == {name: name for name in DATATYPES}
    assert graph.signature.batched
    feeds = {name: np.ones((3, 2)).astype(dtype) for name, dtype in DATATYPES.items() if name != "BYTES"}
    feeds["BYTES"] = np.array([["ä", ""], ["b", "c"], ["d", "e"]], object)
    for name, found in zip(feeds, graph.run([f"{name}_back" for name in feeds], feeds), strict=True):
        assert found.dtype == feeds[name].dtype
        assert found.tolist() == feeds[name].tolist()


@pytest.mark.parametrize("labels", [(0, 1), ("no", "yes"), (3, 1, 2)], ids=str)
def test_probabilities_as_dictionaries_are_served_as_columns(labels: tuple[object, ...]) -> None:
    fitted, data = graphs.classifier(zipmap=True, labels=labels)
    graph, rows = Graph(data), np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    label, probabilities = graph.signature.outputs
    assert (probabilities.datatype, probabilities.shape) == ("FP32", [-1, len(labels)])
    found = graph.run([label.name, probabilities.name], {"X": rows})
    np.testing.assert_allclose(found[1], fitted.predict_proba(rows), atol=1e-5)
    assert found[0].tolist() == fitted.predict(rows).tolist()
    assert graph.signature.batched


def test_rows_that_see_each_other_are_not_put_together() -> None:
    assert not Graph(graphs.centred()).signature.batched


def test_a_first_dimension_of_fixed_size_is_no_rows() -> None:
    value = ("x", TensorProto.FLOAT, [1, 3])
    data = graphs.graph([helper.make_node("Identity", ["x"], ["y"])], [value], [("y", TensorProto.FLOAT, [1, 3])])
    assert not Graph(data).signature.batched


def test_values_that_the_model_does_not_take_are_refused_in_one_line() -> None:
    graph = Graph(graphs.picked())
    assert graph.run(["y"], {"i": np.array([1, 0])})[0].tolist() == [20.0, 10.0]
    with pytest.raises(Refused, match=r"does not take these values: .*indices element out of data bounds") as caught:
        graph.run(["y"], {"i": np.array([7])})
    assert "\n" not in str(caught.value)


BAD = {
    "nothing": b"",
    "no protobuf": b"\xff" * 100,
    "a page": b"<html><body>404</body></html>",
    "truncated": graphs.scaled(2.0)[:-7],
    "external data": graphs.pointing_outside(),
    "an operator that is none": graphs.graph(
        [helper.make_node("Nonsense", ["x"], ["y"])], [("x", TensorProto.FLOAT, [1])], [("y", TensorProto.FLOAT, [1])]
    ),
    "BF16": graphs.graph(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", TensorProto.BFLOAT16, [1])], [("y", TensorProto.BFLOAT16, [1])]
    ),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_cannot_be_served_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(PenstockError) as caught:
        Graph(data)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
