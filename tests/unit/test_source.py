"""What a definition says, by which fingerprints and conditions are told apart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from penstock.source import names_read, source_of

LIMIT = 10
KINDS = frozenset({"fuel", "food", "rent", "fun"})


def _large(amount: float) -> bool:
    return amount > LIMIT


def test_a_value_of_the_file_is_part_of_what_a_function_says(monkeypatch: Any) -> None:
    before = source_of(lambda p: p.amount > LIMIT)
    monkeypatch.setitem(globals(), "LIMIT", 11)
    assert source_of(lambda p: p.amount > LIMIT) != before
    assert source_of(lambda p: p.LIMIT > 10) == "lambda p: p.LIMIT > 10", "an attribute of that name is another thing"


def test_so_is_what_a_function_of_the_file_says_that_it_calls(monkeypatch: Any) -> None:
    before = source_of(lambda p: _large(p.amount))
    monkeypatch.setitem(globals(), "LIMIT", 11)
    assert source_of(lambda p: _large(p.amount)) != before


def test_so_are_defaults_and_what_outer_functions_hold() -> None:
    def held(kind: str) -> Callable[[Any], bool]:
        return lambda p: bool(p.kind == kind)

    def given(kind: str) -> Callable[..., bool]:
        return lambda p, kind=kind: bool(p.kind == kind)

    for made in (held, given):
        assert source_of(made("food")) == source_of(made("food")) != source_of(made("fuel"))


def test_sets_and_objects_are_said_alike_in_every_process() -> None:
    assert "KINDS={'food', 'fuel', 'fun', 'rent'}" in source_of(lambda p: p.kind in KINDS)
    thing = object()
    assert "0x" not in source_of(lambda p: p.kind is thing)
    named = SimpleNamespace(limit=3)
    assert "limit=3" in source_of(lambda p: p.amount > named.limit)


def test_comments_layout_and_docstrings_are_not() -> None:
    def one(a: float) -> float:
        """What it is."""
        return a + 1.0

    def other(a: float) -> float:
        # what it is

        return a + 1.0

    assert source_of(one).replace("one", "other") == source_of(other)


def test_a_function_that_calls_itself_is_said_once() -> None:
    assert "_odd=" in source_of(_even)


def _even(n: int) -> bool:
    return n == 0 or _odd(n - 1)


def _odd(n: int) -> bool:
    return n != 0 and _even(n - 1)


def test_every_attribute_that_is_read_of_an_argument_is_found() -> None:
    def rule(p: Any) -> bool:
        least = p.low
        return bool(least < p.high and max(least, p.middle) > 0 and p.kind.startswith("f") and p.low > 1)

    assert [name for name, _ in names_read(rule, 0)] == ["low", "high", "middle", "kind", "low"]
    assert {at[0] for _, at in names_read(rule, 0)} == {__file__}
