"""A plain Python function says which tensors it takes and gives, and stays what it was."""

from __future__ import annotations

import re
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


# --- around a model ---------------------------------------------------------------------------------------------------


@ps.event("walks")
class Walk:
    walk: ps.Id[str]
    dog: ps.Key[str]
    length: float
    weight: float
    at: ps.EventTime


@ps.event("tired")
class Tired:
    walk: ps.Key[str]
    yes: bool
    at: ps.EventTime


@ps.features(by=Walk.dog)
class Dog:
    length = ps.mean(Walk.length, over="7d")


@ps.function(takes={"weight": "FP64[*]", "Walk_length": "FP64[*]", "X": "FP32[*, 3]"}, gives={"X": "FP32[*, 2]"})
def before(weight: Any, Walk_length: Any, X: Any) -> dict[str, Any]:  # noqa: N803
    return {"X": X[:, :2]}


@ps.function(takes={"score": "FP64[*]", "weight": "FP64[*]"}, gives={"score": "FP64[*]"})
def after(score: Any, weight: Any) -> dict[str, Any]:
    return {"score": score}


def of(takes: dict[str, str], gives: dict[str, str]) -> Any:
    """A function that takes and gives these."""
    made: Any = eval(f"lambda {', '.join(takes)}: {{}}")
    made.__qualname__ = made.__name__ = "made"
    return ps.function(takes=takes, gives=gives)(made)


def model(**around: Any) -> Any:
    @ps.model(scores=Walk, features=[Walk.length, Walk.weight, Dog], label=ps.label(Tired.yes, within="1d"), **around)
    def tired() -> ps.Learner:
        raise NotImplementedError

    return tired


def test_functions_around_a_model_make_another_project() -> None:
    plain, around = ps.Project("dogs", [model()]), ps.Project("dogs", [model(before=before, after=after)])
    assert plain.fingerprint != around.fingerprint
    assert around.models[0].codes.keys() >= {"before", "after"}


X2 = {"X": "FP32[*, 2]"}
SCORE = {"score": "FP64[*]"}


@pytest.mark.parametrize(
    ("role", "made", "why", "fix"),
    [
        ("before", len, "len does not say which tensors it takes", ""),
        ("before", lambda: of({"lenght": "FP64[*]"}, X2), "takes lenght, which is no input of the model", "did you mean weight"),
        ("before", lambda: of({"length": "FP64[*]"}, X2), "takes length, which is no input", "did you mean Dog_length"),
        ("before", lambda: of({"weight": "FP32[*]"}, X2), r"takes weight as FP32\[\*\]", r"write FP64\[\*\]"),
        ("before", lambda: of({"X": "FP32[*, 2]"}, X2), r"takes X as FP32\[\*, 2\]", r"write FP32\[\*, 3\]"),
        ("before", lambda: of({"X": "FP32[*, 3]"}, {"X": "FP64[*, 2]"}), "before=made does not give X alone", "gives="),
        ("before", lambda: of({"X": "FP32[*, 3]"}, {"X": "FP32[*, *]"}), "before=made does not give X alone", "gives="),
        ("before", lambda: of({"X": "FP32[*, 3]"}, X2 | SCORE), "before=made does not give X alone", "gives="),
        ("before", lambda: of(SCORE, X2), "takes score, which is no input of the model", ""),
        (
            "after",
            lambda: of({"X": "FP32[*, 3]"}, SCORE),
            "after=made does not take and give the score",
            "let takes= and gives= have",
        ),
        (
            "after",
            lambda: of(SCORE, {"score": "BYTES[*]"}),
            "after=made does not take and give the score",
            "let takes= and gives= have",
        ),
        ("after", lambda: of({"score": "FP64[*, 2]"}, SCORE), r"takes score as FP64\[\*, 2\]", r"write FP64\[\*\]"),
    ],
)
def test_a_function_that_does_not_fit_around_the_model_is_a_mistake(role: str, made: Any, why: str, fix: str) -> None:
    with pytest.raises(ps.DefinitionError, match=why) as told:
        model(**{role: made if made is len else made()})
    assert re.search(fix, str(told.value))
