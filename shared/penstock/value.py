"""Value: what answers are worth to whoever acts on them, by what was said and what was true."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from .mistake import mistake

__all__ = ["Value", "value"]


@dataclass(frozen=True)
class Value:
    """Worth of one answer in a unit of your own. An answer says yes from the probability `above` on."""

    true_positive: float
    false_positive: float
    true_negative: float
    false_negative: float
    above: float


def value(
    *,
    true_positive: float = 0.0,
    false_positive: float = 0.0,
    true_negative: float = 0.0,
    false_negative: float = 0.0,
    above: float = 0.5,
) -> Value:
    """What an answer is worth: gains above 0, costs below; whoever acts on it does so from the probability `above` on.

    A fraud that is stopped saves 90, a customer who is stopped in vain costs 4, and nothing else costs anything that a model
    could change:

        value=ps.value(true_positive=90, false_positive=-4, above=0.2)

    The quality of the model then has its value per answer with an interval, beside that of answering with the prior. `above` is a
    multiple of 0.005, as scores are counted in steps of that size.
    """
    worth = (true_positive, false_positive, true_negative, false_negative)
    if not all(map(isfinite, worth)) or len(set(worth)) == 1:
        mistake(f"value({', '.join(map(str, worth))})", "write finite numbers that are not all the same")
    if not 0 < above < 1 or abs(above * 200 - round(above * 200)) > 1e-9:
        mistake(f"value(above={above})", "above lies between 0 and 1 and is a multiple of 0.005")
    return Value(*worth, above)
