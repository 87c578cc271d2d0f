"""Conditions: what the inputs of a slice have in common, for programs and in words."""

from __future__ import annotations

import msgspec

__all__ = ["Condition"]


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one input. A number lies above `above` and is at most `at_most`; without `above` and with `missing` it may be missing. A
    text or truth is `level`, or is none of `others`."""

    input: str
    above: float | None = None
    at_most: float | None = None
    missing: bool = False
    """Alone: the input is missing."""
    level: str | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        """
        >>> print(Condition(input="amount", above=3.0, at_most=250.5), Condition(input="amount", at_most=3.0, missing=True))
        3 < amount ≤ 250.5 amount ≤ 3 (or missing)
        >>> print(Condition(input="city", level="Rome"), Condition(input="city", others=("Rome",)))
        city is Rome city is not Rome
        """
        name, above, at_most = self.input, self.above, self.at_most
        if self.level is not None:
            return f"{name} is {self.level}"
        if self.others:
            return f"{name} is not {' or '.join(self.others)}"
        if above is not None and at_most is not None:
            return f"{_said(above)} < {name} ≤ {_said(at_most)}"
        if above is not None:
            return f"{name} > {_said(above)}"
        if at_most is not None:
            return f"{name} ≤ {_said(at_most)}" + (" (or missing)" if self.missing else "")
        return f"{name} is {'' if self.missing else 'not '}missing"


def _said(number: float) -> str:
    return repr(number).removesuffix(".0")
