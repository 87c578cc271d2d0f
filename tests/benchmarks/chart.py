"""Figures drawn as one SVG: a group of bars for each, ours beside floor and peers, the goal as a line.

Every group has an axis of its own, as units differ, and all axes are logarithmic with decades of the same length: the same
distance is the same factor everywhere. Where a bar begins means nothing; by how much one is longer than another does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from .figure import Figure

__all__ = ["drawn", "shown"]

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 1100, 350, 330, 15, 20, 84
OURS, BESIDE, INK, GRID, GOAL = "#0b7285", "#adb5bd", "#212529", "#ced4da", "#d9480f"
MARGIN: Final = 0.35
"""Decades that the shortest bar is long."""

LEAST: Final = 1e-9
"""Nothing has no logarithm."""


def drawn(title: str, subtitle: str, figures: Mapping[str, Sequence[Figure]]) -> str:
    """The picture of the figures of each benchmark."""
    decades = max((spread(figure) for group in figures.values() for figure in group), default=0.0) + MARGIN
    body, y = list[str](), float(TOP)
    for name, group in figures.items():
        body.append(text(16, y + 12, name, size=15, weight="bold"))
        y += 24
        for figure in group:
            lines, height = panel(figure, y, decades)
            body += lines
            y += height + GAP
        y += 8
    legend = [*key(LEFT, "ours", OURS), *key(LEFT + 70, "floor or peer, same run", BESIDE)]
    legend += [*key(LEFT + 245, "recorded, not run here", "none"), line(LEFT + 418, 52, 64, GOAL, 2.5)]
    legend += [
        text(LEFT + 426, 63, "goal", size=12),
        line(LEFT + 470, 52, 64, GRID, 1),
        text(LEFT + 476, 63, "powers of ten", size=12),
    ]
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0f}" viewBox="0 0 {WIDTH} {y:.0f}" '
        'font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{y:.0f}" fill="white"/>',
        text(16, 24, title, size=18, weight="bold"),
        text(16, 42, subtitle, size=12, fill="#495057"),
    ]
    return "\n".join([*head, *legend, *body, "</svg>\n"])


def panel(figure: Figure, y: float, decades: float) -> tuple[list[str], float]:
    """The bars of one figure from `y` on, and their height."""
    highest = math.log10(max(values(figure)))
    scale = (WIDTH - LEFT - RIGHT) / decades

    def x(value: float) -> float:
        return LEFT + scale * (math.log10(max(value, LEAST)) - highest + decades)

    bars = [("ours", figure.ours, OURS), *((name, value, BESIDE) for name, value in figure.beside.items())]
    bars += [(f"{name}, recorded", value, "none") for name, value in figure.recorded.items()]
    bottom = y + BAR * len(bars)
    lines = [line(x(10.0**power), y - 4, bottom + 2, GRID, 1) for power in powers(highest - decades, highest)]
    for row, (name, value, fill) in enumerate(bars):
        top = y + row * BAR
        lines.append(rect(LEFT, top, max(x(value) - LEFT, 1.0), BAR - 3, fill))
        said = f"{shown(value)}  {name}" if row else f"{shown(value)} {figure.unit}{verdict(figure)}"
        lines.append(text(WIDTH - RIGHT + 12, top + 10, said, size=11, weight="" if row else "bold"))
    goal = figure.goal_value
    if goal is not None:
        lines.append(line(x(goal), y - 4, bottom + 1, GOAL, 2.5))
    lines.append(text(LEFT - 10, y + 10, figure.name, size=12, anchor="end"))
    arrow = "higher" if figure.better == "higher" else "lower"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}x of {figure.best}; "
    lines.append(text(LEFT - 10, y + 25, f"{ratio}{arrow} is better", size=10, anchor="end", fill="#868e96"))
    return lines, max(bottom - y, 28.0)


def verdict(figure: Figure) -> str:
    goal = figure.goal_value
    return "" if goal is None else f" (goal {shown(goal)}{'' if figure.met else ': missed'})"


def values(figure: Figure) -> list[float]:
    found = [figure.ours, *figure.beside.values(), *figure.recorded.values()]
    found += [figure.goal_value] if figure.goal_value is not None else []
    return [max(value, LEAST) for value in found]


def spread(figure: Figure) -> float:
    """Decades between the least and the greatest value of a figure."""
    found = values(figure)
    return math.log10(max(found) / min(found))


def powers(low: float, high: float) -> Iterator[int]:
    yield from range(math.ceil(low), math.floor(high) + 1)


def shown(value: float) -> str:
    """Three digits, or all before the point.

    >>> shown(117_347.2), shown(0.0512), shown(2.345)
    ('117,347', '0.0512', '2.35')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text(x: float, y: float, said: str, size: int, weight: str = "", anchor: str = "", fill: str = INK) -> str:
    extra = (f' font-weight="{weight}"' if weight else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}"{extra}>{escape(said)}</text>'


def rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    edge = f' stroke="{BESIDE}" stroke-dasharray="3 2"' if fill == "none" else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"{edge}/>'


def line(x: float, top: float, bottom: float, stroke: str, width: float) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{stroke}" stroke-width="{width}"/>'


def key(x: float, said: str, fill: str) -> list[str]:
    return [rect(x, 52, 18, 12, fill), text(x + 24, 63, said, size=12)]
