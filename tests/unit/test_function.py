"""A plain Python function says which tensors it takes and gives, and stays what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import penstock as ps
from penstock.errors import PenstockError
from penstock.function import declared
from penstock.scoring.chain import Chain
from penstock.scoring.signature import Array, Signature, Tensor


@ps.function(takes={"amount": "FP64[*]", "country": "BYTES[*]"}, gives={"X": "FP32[*, 2]"})
def prepare(amount: Any, country: Any) -> dict[str, Any]:
    return {"X": np.stack([np.log1p(amount), country == "NL"], axis=1, dtype=np.float32)}


def test_it_is_called_like_any_other_function() -> None:
    assert prepare(np.zeros(2), np.array(["NL", "BE"], object))["X"].tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_it_says_what_it_takes_and_gives() -> None:
    assert declared(prepare).takes == {"amount": ("FP64", [-1]), "country": ("BYTES", [-1])}
    assert declared(prepare).gives == {"X": ("FP32", [-1, 2])}
    assert declared(prepare).batched


@pytest.mark.parametrize("spelled", ["", "FP32", "FP32[]", "FLOAT[*]", "FP128[*]", "FP32[-1]", "FP32[*,]", "fp32[*]", "INT8[a]"])
def test_a_tensor_that_is_not_spelled_so_is_a_mistake(spelled: str) -> None:
    with pytest.raises(ps.DefinitionError, match="is no tensor"):
        ps.function(takes={"x": spelled}, gives={"y": "FP32[*]"})(lambda x: {"y": x})


def test_parameters_are_called_as_it_says() -> None:
    with pytest.raises(ps.DefinitionError, match="has the parameters z"):
        ps.function(takes={"x": "FP32[*]"}, gives={"y": "FP32[*]"})(lambda z: {"y": z})


def test_what_says_nothing_is_not_served() -> None:
    with pytest.raises(ps.DefinitionError, match="does not say which tensors"):
        declared(len)


class Step:
    """Adds up what it takes, and gives that by some name."""

    def __init__(self, takes: str, gives: str, shape: tuple[int, ...] = (-1,), datatype: str = "FP64") -> None:
        inputs = tuple(Tensor(name, datatype, list(shape)) for name in takes.split())
        self.signature = Signature(inputs, tuple(Tensor(name, "FP64", [-1]) for name in gives.split()))

    def run(self, wanted: Any, feeds: Mapping[str, Array]) -> list[Array]:
        assert set(feeds) == {tensor.name for tensor in self.signature.inputs}
        return [sum(feeds.values()) for _ in wanted]  # type: ignore[misc]


def test_what_no_step_gives_is_asked_of_the_request() -> None:
    chain = Chain([("one", Step("a b", "c")), ("two", Step("c a", "d e")), ("three", Step("e z", "f"))])
    assert [tensor.spelled for tensor in chain.signature.inputs] == ["a FP64[*]", "b FP64[*]", "z FP64[*]"]
    assert chain.signature.names == ("f",)
    given = {name: np.array([value]) for name, value in (("a", 1.0), ("b", 2.0), ("z", 10.0))}
    assert chain.run(["f"], given)[0].tolist() == [14.0]  # e = c + a = 4, and z


@pytest.mark.parametrize(
    ("steps", "cause"),
    [
        ([Step("a", "c"), Step("d", "e")], "no later step takes anything that 0 gives"),
        ([Step("a", "c"), Step("c", "e", (-1, 2))], r"1 takes c FP64\[\*, 2\], and 0 gives c FP64\[\*\]"),
        ([Step("a", "c"), Step("c", "e", datatype="FP32")], r"1 takes c FP32\[\*\], and 0 gives c FP64"),
        ([Step("a", "c"), Step("c a", "e", datatype="FP64"), Step("e a", "f", (3, 3))], r"2 takes e .* and 1 gives"),
    ],
)
def test_steps_that_do_not_fit_together_are_refused_before_anybody_asks(steps: list[Step], cause: str) -> None:
    with pytest.raises(PenstockError, match=cause):
        Chain([(str(at), step) for at, step in enumerate(steps)])
