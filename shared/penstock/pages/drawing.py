"""Pictures as SVG, stretched to the width they are given; what is text in them stands beside, so that it is never stretched.

Every picture says in words what it shows (aria-label), each mark its figures (title). The same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from .words import escape, short, visible

__all__ = ["Line", "bars", "chart", "distributions", "histogram", "key", "pairs", "path", "strip", "ticks"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]

TALL: Final = 72
"""Height of a small picture, which is 100 wide."""
STEPS: Final = 40
"""Bars of a distribution."""
CLIPPED: Final = 3
"""A distribution is drawn up to so many times the height of the other."""
LISTED: Final = 10
"""Levels of a picture: those whose share has changed most."""
WIDE, HIGH = 1000, 260
"""Of a chart, in its own units."""


def histogram(counts: Sequence[int], names: Sequence[str], said: str, middle: str = "") -> str:
    """Counts of bins, named by their borders: one name more than counts. `said` is the picture in words."""
    most, wide = max(counts), 100 / len(counts)
    drawn = []
    for i, count in enumerate(counts):
        tall = max(TALL * count / most, 1.2) if count else 0.0
        between = f"{names[i]} to {names[i + 1]}: {count:,}"
        drawn.append(_bar(i * wide + 0.25, wide - 0.5, tall, between))
    head = f'<svg viewBox="0 0 100 {TALL}" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
    return _figure(f"{head}{''.join(drawn)}</svg>", [names[0], middle, names[-1]])


def distributions(name: str, edges: Sequence[float], then: Counts, now: Counts) -> str:
    """Two distributions over equal steps of the value, from the first edge to the last; what lies beyond is in the end bars.
    Counts have one bin more than there are edges, and are not all zero."""
    borders = np.asarray(edges, np.float64)
    grid = np.linspace(borders[0], borders[-1], STEPS - 1)
    past, present = (_over(grid, borders, counts) for counts in (then, now))
    tallest = past.max(), present.max()
    top, wide = min(max(tallest), CLIPPED * min(tallest)), 100 / STEPS  # so that a heap at an end does not flatten the other
    drawn, line = [], [f"M0 {TALL}"]
    for i in range(STEPS):
        lower = f"below {short(float(grid[0]))}" if i == 0 else f"from {short(float(grid[i - 1]))}"
        drawn.append(
            _bar(i * wide, wide, TALL * min(past[i] / top, 1.0), f"{lower}: {past[i]:.2%} in the reference, {present[i]:.2%} now")
        )
        line.append(f"L{i * wide:.4g} {max(TALL - TALL * present[i] / top, 0.0):.4g}H{(i + 1) * wide:.4g}")
    line.append(f"L100 {TALL}")
    least, most = short(float(borders[0])), short(float(borders[-1]))
    said = f"Distributions of {name}: reference and now, from {least} to {most}"
    svg = (
        f'<svg class="both" viewBox="0 -2 100 {TALL + 2}" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f'{"".join(drawn)}<path d="{" ".join(line)}"/></svg>'
    )
    return _figure(svg, [f"≤ {least}", f"≥ {most}"])


def _over(grid: Floats, edges: Floats, counts: Counts) -> Floats:
    """Shares of below the grid, of its steps, of above; a bin is spread evenly over the steps that it touches."""
    shares = np.asarray(counts, np.float64) / counts.sum()
    inner = np.interp(grid, edges, np.cumsum(shares)[:-1])
    return np.concatenate(([shares[0]], np.diff(inner), [shares[-1]]))


def _bar(x: float, wide: float, tall: float, said: str) -> str:
    return f'<rect x="{x:.4g}" y="{TALL - tall:.4g}" width="{wide:.4g}" height="{tall:.4g}"><title>{escape(said)}</title></rect>'


def _figure(svg: str, under: Iterable[str]) -> str:
    return f"<figure>{svg}<figcaption>{''.join(f'<span>{escape(text)}</span>' for text in under)}</figcaption></figure>"


def pairs(names: Sequence[str], then: Counts, now: Counts) -> str:
    """The shares of levels in the reference and now, as two bars each; those that have changed most, in their order."""
    past, present = then / then.sum(), now / now.sum()
    some = [at for at in range(len(names)) if past[at] or present[at]]
    most = sorted(sorted(some, key=lambda at: -abs(past[at] - present[at]))[:LISTED])
    top = max(max(past[at], present[at]) for at in most)
    lines = "".join(
        f'<li><span class="what">{escape(visible(names[at]))}</span>'
        f'<span><i style="width:{100 * past[at] / top:.4g}%"></i>'
        f'<i style="width:{100 * present[at] / top:.4g}%"></i></span>'
        f'<span class="n">{past[at]:.1%} → {present[at]:.1%}</span></li>'
        for at in most
    )
    more = len(some) - len(most)
    rest = f'<p class="note">and {more:,} more, whose shares have changed less</p>' if more else ""
    return f'<ol class="pairs" aria-label="Shares in the reference and now">{lines}</ol>{rest}'


def bars(lines: Sequence[tuple[str, float, Sequence[str]]], said: str) -> str:
    """Named shares from 0 to 1, with a few words each."""
    drawn = []
    for name, share, words in lines:
        bar = f'<span class="bar"><i style="width:{100 * share:.4g}%"></i></span>'
        cells = "".join(f'<span class="n">{escape(word)}</span>' for word in words)
        drawn.append(f'<li><span class="what">{escape(name)}</span>{bar}{cells}</li>')
    return f'<ol class="frequent" aria-label="{escape(said)}">{"".join(drawn)}</ol>'


def strip(values: Sequence[float | None], names: Sequence[str], said: str) -> str:
    """Multiples of a limit over time, a cell each, in five strengths; None is a gap."""
    cells = [
        f'<rect class="h{_strength(value)}" x="{at}" y="0" width="1.02" height="1"><title>{escape(name)}</title></rect>'
        for at, (value, name) in enumerate(zip(values, names, strict=True))
        if value is not None
    ]
    return (
        f'<svg class="strip" viewBox="0 0 {max(len(values), 1)} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(said)}">{"".join(cells)}</svg>'
    )


def _strength(value: float) -> int:
    return sum(value > border for border in (0.5, 0.8, 1.0, 2.0))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart: its points by x, broken where y is None. `tone` is its style, named in the style sheet."""

    name: str
    tone: str
    points: Sequence[tuple[float, float | None]]
    band: Sequence[tuple[float, float, float]] = ()
    """x, low, high: the interval about it."""
    dots: bool = False
    titles: Sequence[str] = field(default=())
    """What each point says when it is pointed at."""


def chart(
    lines: Sequence[Line],
    said: str,
    across: tuple[float, float],
    names: Sequence[tuple[float, str]],
    marks: Sequence[tuple[float, str, str]] = (),
    shades: Sequence[tuple[float, float, str]] = (),
    within: tuple[float, float] | None = None,
    square: bool = False,
) -> str:
    """Lines over a number, such as a time. `across` is where x begins and ends, `names` are the words under it, `marks` upright
    lines (x, tone, words), `shades` spans (from, to, words), `within` the range of y (default: what the lines need)."""
    low, high = within or _range(lines)
    steps = ticks(low, high)
    low, high = min(low, steps[0]), max(high, steps[-1])
    wide = across[1] - across[0] or 1.0

    def x(value: float) -> str:
        return f"{min(max(WIDE * (value - across[0]) / wide, 0.0), WIDE):.5g}"

    def y(value: float) -> str:
        return f"{min(max(HIGH * (1 - (value - low) / (high - low)), 0.0), HIGH):.5g}"

    drawn = [f'<path class="grid" d="{"".join(f"M0 {y(step)}H{WIDE}" for step in steps)}"/>']
    for first, last, words in shades:
        left, right = float(x(first)), float(x(last))
        drawn.append(
            f'<rect class="shade" x="{left:.5g}" y="0" width="{max(right - left, 2):.5g}" height="{HIGH}">'
            f"<title>{escape(words)}</title></rect>"
        )
    for line in lines:
        if line.band:
            there = "".join(f"L{x(at)} {y(above)}" for at, _, above in line.band)
            back = "".join(f"L{x(at)} {y(below)}" for at, below, _ in reversed(line.band))
            drawn.append(f'<path class="band {line.tone}" d="M{there[1:]}{back}Z"/>')
    for line in lines:
        drawn.append(f'<path class="line {line.tone}" d="{path(line.points, x, y)}"/>')
        if line.dots:
            dots = "".join(f"M{x(at)} {y(value)}h0" for at, value in line.points if value is not None)
            drawn.append(f'<path class="dots {line.tone}" d="{dots}"/>')
    for at, tone, words in marks:
        drawn.append(f'<path class="mark {tone}" d="M{x(at)} 0V{HIGH}"><title>{escape(words)}</title></path>')
    drawn += _titles(lines, x)
    rows = "".join(f'<span style="bottom:{100 * (step - low) / (high - low):.4g}%">{_tick(step, steps)}</span>' for step in steps)
    under = "".join(_under((at - across[0]) / wide, text) for at, text in names if across[0] <= at <= across[1])
    return (
        f'<figure class="chart{" square" if square else ""}"><div class="y" aria-hidden="true">{rows}</div>'
        f'<svg viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f"{''.join(drawn)}</svg>"
        f'<div class="x" aria-hidden="true">{under}</div></figure>'
    )


def _under(share: float, text: str) -> str:
    """A word under a chart; at either end it stays inside."""
    side = ' class="first"' if share < 0.03 else ' class="last"' if share > 0.97 else ""
    return f'<span{side} style="left:{100 * share:.4g}%">{escape(text)}</span>'


def path(points: Sequence[tuple[float, float | None]], x: Callable[[float], str], y: Callable[[float], str]) -> str:
    """What an SVG path says of a line, broken where y is None. `x` and `y` give places in the picture.

    >>> path([(0, 1), (1, 2), (2, None), (3, 4)], str, str)
    'M0 1L1 2M3 4'
    """
    said, broken = [], True
    for at, value in points:
        if value is not None:
            said.append(f"{'M' if broken else 'L'}{x(at)} {y(value)}")
        broken = value is None
    return "".join(said)


def _titles(lines: Sequence[Line], x: object) -> list[str]:
    """Over all, what each point of the lines that have words says; a point is met half-way to its neighbours."""
    assert callable(x)
    found = []
    for line in lines:
        ends = [float(x(at)) for at, _ in line.points]
        for at, words in enumerate(line.titles):
            left = 0.0 if at == 0 else (ends[at - 1] + ends[at]) / 2
            right = float(WIDE) if at == len(ends) - 1 else (ends[at] + ends[at + 1]) / 2
            found.append(
                f'<rect class="over" x="{left:.5g}" y="0" width="{max(right - left, 0):.5g}" height="{HIGH}">'
                f"<title>{escape(words)}</title></rect>"
            )
    return found


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """What the lines need; intervals may take as much again above and below, no more: those of a few outcomes are wide."""
    values = [value for line in lines for _, value in line.points if value is not None] or [0.0, 1.0]
    low, high = min(values), max(values)
    room = (high - low) or abs(high) * 0.1 or 1.0
    lows = [below for line in lines for _, below, _ in line.band]
    highs = [above for line in lines for _, _, above in line.band]
    return max(min([low, *lows]), low - room / 2), min(max([high, *highs]), high + room / 2)


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers that hold a range, at most `most` steps apart.

    >>> ticks(0.31, 0.52), ticks(0, 1)
    ([0.3, 0.4, 0.5, 0.6], [0.0, 0.25, 0.5, 0.75, 1.0])
    """
    span = max(high - low, abs(high) * 1e-6, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * power for s in (1, 2, 2.5, 5, 10, 20) if span / (s * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, max(last, first + 1) + 1)]


def _tick(value: float, steps: Sequence[float]) -> str:
    """With as many digits as tell it from its neighbours."""
    step = steps[1] - steps[0]
    if abs(value) >= 1e6 or step < 1e-6:
        return f"{value:.3g}"
    places = max(0, next((d for d in range(7) if abs(round(step, d) - step) < step * 1e-6), 6))
    return f"{value:,.{places}f}"


def key(names: Iterable[tuple[str, str]]) -> str:
    """What the tones of a picture mean: (tone, name)."""
    return '<p class="key">' + "".join(f'<span class="{tone}">{escape(name)}</span>' for tone, name in names) + "</p>"
