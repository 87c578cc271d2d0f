"""Numbers and texts as people read them."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..records import Measure

__all__ = ["cut", "escape", "loss_said", "percent", "ranged", "short", "visible"]


def escape(text: str) -> str:
    """Text as HTML: no markup, nothing that cannot be seen, such as what turns the direction of writing.

    >>> escape("<b>" + chr(0x202E) + "a" + chr(0))
    '&lt;b&gt;�a�'
    """
    return html.escape(text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text.replace("\n", " ")))


def short(value: float | str | bool | None) -> str:
    """A number in about four digits; times without what says nothing.

    >>> short(1234567.8), short(0.000123456), short(3.0), short(-2.5e12), short(None)
    ('1,234,568', '0.0001235', '3', '-2.5e+12', '–')
    >>> short("2013-01-01T05:15:00+00:00")
    '2013-01-01 05:15'
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return cut(value.removesuffix("+00:00").partition(".")[0].replace("T", " ").removesuffix(":00"))
    if isinstance(value, bool):
        return str(value).lower()
    if not math.isfinite(value) or abs(value) >= 1e12 or 0 < abs(value) < 1e-4:
        return f"{value:.4g}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(part: int, whole: int) -> str:
    """Never 0 % of something, nor 100 % of less than all.

    >>> percent(1, 100_000), percent(99_999, 100_000), percent(1, 3), percent(0, 0)
    ('< 0.1 %', '> 99.9 %', '33.3 %', '0 %')
    """
    share = part / whole if whole else 0.0
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share:.0%}".replace("%", " %") if share in (0.0, 1.0) else f"{share:.1%}".replace("%", " %")


def ranged(measure: Measure | None, form: str) -> str:
    """A value with its interval.

    >>> from penstock.records import Measure
    >>> ranged(Measure(value=0.5, low=0.25, high=0.75), "+.2f"), ranged(None, ".2f")
    ('+0.50 (+0.25 to +0.75)', '–')
    """
    return "–" if measure is None else f"{measure.value:{form}} ({measure.low:{form}} to {measure.high:{form}})"


def loss_said(name: str) -> str:
    """A loss by its name in records.

    >>> loss_said("zero_one_loss"), loss_said("log_loss")
    ('wrong answers', 'log loss')
    """
    return "wrong answers" if name == "zero_one_loss" else name.replace("_", " ")


def visible(text: str) -> str:
    """On one line, and so that an empty or blank one is seen.

    >>> visible("a\\x00b"), visible(" a"), visible("a")
    ('a�b', '“ a”', 'a')
    """
    seen = cut("".join(c if c.isprintable() else "�" for c in text))
    return f"“{seen}”" if not seen.strip() or seen != seen.strip() else seen


def cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
