"""Declaring what a good record looks like, beside its event.

    ps.expect(Payment.amount, between=(0.01, 10_000), otherwise="dead_letter")
    ps.expect(Payment.country, among=["DE", "FR"], otherwise="alarm", above=0.01)
    ps.expect(Payment.card_id, matches=r"[0-9]{16}")
    ps.expect(Payment.payment_id, unique="1d")

    @ps.expect
    def refunds_are_negative(payment: Payment) -> bool:
        return (payment.kind != "refund") | (payment.amount < 0)

Arithmetic, comparisons, `&` and `|` are judged in whole columns; a rule may do anything else that Python can, one by one.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar, get_type_hints, overload

from .event import Column, column_of, event_of
from .expectation import Among, Between, Expectation, Matches, Otherwise, Present, Remembering, Rising, Rule, Unique
from .mistake import mistake, nearest
from .source import names_read

__all__ = ["expect"]

E = TypeVar("E")
N = TypeVar("N", float, datetime)


@overload
def expect(rule: Callable[[E], bool], /) -> Callable[[E], bool]: ...
@overload
def expect(*, otherwise: Otherwise = "flag", above: float = 0.0) -> Callable[[Callable[[E], bool]], Callable[[E], bool]]: ...
@overload
def expect(
    column: N | None,
    /,
    *,
    between: tuple[N | None, N | None] | None = None,
    among: Collection[N] | None = None,
    unique: str | None = None,
    rising: bool = False,
    present: bool = False,
    otherwise: Otherwise = "flag",
    above: float = 0.0,
) -> None: ...
@overload
def expect(
    column: str | None,
    /,
    *,
    among: Collection[str] | None = None,
    matches: str | None = None,
    unique: str | None = None,
    present: bool = False,
    otherwise: Otherwise = "flag",
    above: float = 0.0,
) -> None: ...
def expect(
    column: object = None,
    /,
    *,
    between: tuple[Any, Any] | None = None,
    among: Collection[Any] | None = None,
    matches: str | None = None,
    unique: str | None = None,
    rising: bool = False,
    present: bool = False,
    otherwise: Otherwise = "flag",
    above: float = 0.0,
) -> Any:
    """Expect something of a column, or (as a decorator) of a whole record.

    `between=(low, high)` (both included, None is open), `among=[...]`, `matches="regular expression"` (all of the text),
    `present=True`, `unique="1d"` (no value twice in that time), `rising=True` (never falls from one record of a key to the
    next); several may be given. `above` goes with otherwise="alarm": the share of a day's records that may fail.

    Raises DefinitionError for a column that is not there, a condition that does not fit its type, or an impossible choice.
    """
    if callable(column) and hasattr(column, "__code__"):
        return _rule(column, otherwise, above, sys._getframe(1).f_locals)
    conditions = (between, among, matches, unique, rising or None, present or None)
    if column is None and all(condition is None for condition in conditions):
        names = sys._getframe(1).f_locals
        return lambda body: _rule(body, otherwise, above, names)
    found = column_of(column)
    made: list[Expectation] = []
    if between is not None:
        made += _between(found, between)
    if among is not None:
        made += _among(found, among)
    if matches is not None:
        if found.kind != "text":
            mistake(f"{found!r} holds {found.kind}, and matches= is of text", "use between= or among=")
        else:
            made.append(Matches(found, matches))
    if present:
        if not found.optional:
            mistake(f"{found!r} is always present", f"declare it as {found.type.__name__} | None, or leave present= out")
        made.append(Present(found))
    if unique is not None:
        made.append(Unique(found, unique))
    if rising:
        if found.kind == "text":
            mistake(f"{found!r} holds text, and rising= is of numbers and times", "name a column of numbers")
        made.append(Rising(found))
    if all(condition is None for condition in conditions):
        mistake(f"nothing is expected of {found!r}", "say what: ps.expect(column, between=(0, 1))")
    for expectation in made:
        _declare(expectation, otherwise, above)
    return None


def _declare(expectation: Expectation, otherwise: Otherwise, above: float) -> None:
    known = expectation.event.expectations
    if otherwise not in ("dead_letter", "flag", "alarm"):
        mistake(f"otherwise={otherwise!r}", 'write "dead_letter", "flag" or "alarm"')
    elif otherwise == "dead_letter" and isinstance(expectation, Remembering):
        mistake(
            f"{expectation!r} depends on the records before, and cannot dead-letter",
            'write otherwise="flag" or "alarm"; repeats of an id column (ps.Id) are dead-lettered anyway',
        )
    elif not 0 <= above < 1 or (above and otherwise != "alarm"):
        mistake(f"above={above} with otherwise={otherwise!r}", 'above is a share from 0 to 1, and goes with otherwise="alarm"')
    elif any(other.name == expectation.name for other in known):
        mistake(f"{expectation!r} is expected twice", "leave one out")
    else:
        expectation.otherwise, expectation.above = otherwise, above
        known.append(expectation)


def _between(column: Column, bounds: tuple[Any, Any]) -> list[Expectation]:
    low, high = bounds if isinstance(bounds, tuple) and len(bounds) == 2 else (None, None)
    fits = datetime if column.kind == "time" else (int, float)
    given = [bound for bound in (low, high) if bound is not None]
    if column.kind == "text":
        mistake(f"{column!r} holds text, and between= is of numbers and times", "use among= or matches=")
    elif not given or not all(isinstance(bound, fits) and bound == bound for bound in given):
        mistake(f"between={bounds!r} of {column!r}", f"write two {column.kind}s, or None for an open end: between=(0, None)")
    elif column.kind == "time" and any(bound.tzinfo is None for bound in given):
        mistake(f"between={bounds!r} of {column!r} has no time zone", "write datetime(..., tzinfo=UTC)")
    elif len(given) == 2 and low > high:
        mistake(f"between={bounds!r}: nothing lies there", "write the lesser bound first")
    else:
        return [Between(column, low, high)]
    return []


def _among(column: Column, values: Collection[Any]) -> list[Expectation]:
    fits = str if column.kind == "text" else datetime if column.kind == "time" else (int, float)
    if isinstance(values, str) or not len(values) or not all(isinstance(value, fits) for value in values):
        mistake(f"among={values!r} of {column!r}", f"list the {column.type.__name__} values that it may have")
        return []
    return [Among(column, values)]


def _rule(body: Callable[[Any], bool], otherwise: Otherwise, above: float, names: Mapping[str, Any]) -> Callable[[Any], bool]:
    code = body.__code__
    try:
        hints = {name: hint for name, hint in get_type_hints(body, localns=dict(names)).items() if name != "return"}
    except NameError as error:
        mistake(f"rule {body.__name__}: {error}", "give its argument an event: (payment: Payment) -> bool")
        return body
    if code.co_argcount != 1 or len(hints) != 1:
        mistake(f"rule {body.__name__} is given one record", "give it one argument, an event: (payment: Payment) -> bool")
        return body
    event = event_of(next(iter(hints.values())))
    read = []
    for name, at in names_read(body, 0):
        if name not in event.columns:
            mistake(f"rule {body.__name__}: {event!r} has no {name}", nearest(name, event.columns), at=at)
        else:
            read.append(name)
    straight = bool(read) and all(step.opname in _STRAIGHT for step in dis.get_instructions(code))
    columns = [event.columns[name] for name in dict.fromkeys(read)]
    _declare(Rule(event, body, columns, straight), otherwise, above)
    return body


_STRAIGHT = frozenset(
    {
        "RESUME", "NOP", "CACHE", "LOAD_FAST", "LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_BORROW_LOAD_FAST_BORROW",
        "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_ATTR", "COMPARE_OP", "BINARY_OP", "UNARY_NEGATIVE", "RETURN_VALUE", "RETURN_CONST",
    }
)  # fmt: skip
"""Instructions that mean the same of a value and of an array of them. No calls, no `and`, no `not`, no `in`, no `is`."""
