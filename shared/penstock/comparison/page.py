"""A comparison as one HTML file: no script, no network, nothing beside it; it reads on a telephone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ..profiling.page import STYLE, cut, short
from ..statistics.drift import Column, Counted
from ..statistics.reference import Cells, Floats, Levels, Numbers

if TYPE_CHECKING:
    from .result import Comparison

__all__ = ["page"]

TALL: Final = 72
"""Height of a picture, which is 100 wide."""
STEPS: Final = 40
"""Bars of a distribution."""
LISTED: Final = 10
"""Levels of a picture: those whose share has changed most."""


def page(title: str, found: Comparison) -> str:
    """The document."""
    order = {name: at for at, name in enumerate(found.drifted)}
    columns = sorted(found.columns, key=lambda c: (order.get(c.name, len(order)), c.verdict == "unknown"))
    head = [
        ("reference", f"{found.rows_then:,} rows"),
        ("now", f"{found.rows_now:,} rows"),
        ("false alarms", f"≤ {found.alpha:.2%}"),
    ]
    head += [("alike in", ", ".join(found.like))] if found.like else []
    said = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in head)
    lines = "".join(_line(at, column) for at, column in enumerate(columns))
    cards = "".join(_card(at, column, found.counted.get(column.name)) for at, column in enumerate(columns))
    together = f'<p class="why">All columns together: {escape(found.together.why)}.</p>' if found.together is not None else ""
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – drift</title>\n<style>{STYLE}{_STYLE}</style></head>\n"
        f'<body><header><h1><span class="drop"></span>{escape(title)} {_chip(found.verdict)}</h1><p>{escape(found.why)}</p>'
        f"<dl>{said}</dl></header>\n<main>\n"
        '<section class="tile index"><h2>Columns</h2><div class="wide"><table><thead><tr><th scope="col">column</th>'
        '<th scope="col">verdict</th><th scope="col">effect and floor</th><th scope="col" class="n">effect</th>'
        f'<th scope="col" class="n">q</th><th scope="col">why</th></tr></thead><tbody>{lines}</tbody></table></div>'
        f"{together}</section>\n"
        f'<div class="cards">{cards}</div>\n</main>\n<footer><p>{_HOW}</p></footer></body></html>\n'
    )


def _chip(verdict: str) -> str:
    return f'<span class="chip {verdict}">{verdict}</span>'


def _line(at: int, column: Column) -> str:
    bar = ""
    if column.effect is not None and column.floor:
        far = min(column.effect / (4 * column.floor), 1.0)  # the floor is a quarter of the way
        over = " over" if column.verdict == "drift" else ""
        bar = f'<div class="effect{over}"><i style="width:{100 * far:.4g}%"></i><b style="left:25%"></b></div>'
    numbers = "".join(f'<td class="n">{"" if v is None else f"{v:.3f}"}</td>' for v in (column.effect,))
    numbers += f'<td class="n">{"" if column.q is None else f"{column.q:.2g}"}</td>'
    return (
        f'<tr><th scope="row"><a href="#c{at}">{escape(cut(column.name))}</a></th><td>{_chip(column.verdict)}</td><td>{bar}</td>'
        f'{numbers}<td class="why">{escape(column.why)}</td></tr>'
    )


def _card(at: int, column: Column, counted: Counted | None) -> str:
    return (
        f'<section class="tile" id="c{at}" aria-labelledby="h{at}"><h2 id="h{at}"><span>{escape(cut(column.name))} '
        f"<small>{escape(column.kind)}</small></span>{_chip(column.verdict)}</h2>"
        f'<p class="why">{escape(column.why[:1].upper() + column.why[1:])}.</p>'
        f"{'' if counted is None else ''.join(_parts(column, counted))}</section>\n"
    )


def _parts(column: Column, counted: Counted) -> Iterator[str]:
    reference, now, then = counted.reference, counted.now, counted.then
    body, before = reference.body(now), reference.body(then)
    if body.sum() and before.sum():
        if isinstance(reference, Levels) or len(reference.edges) <= LISTED + 1:
            yield _bars(reference, body, before)
        elif np.isfinite(reference.edges[-1] - reference.edges[0]):
            yield _curves(column.name, reference, body, before)
        yield '<p class="key"><span>reference</span><span class="now">now</span></p>'
    facts = []
    if isinstance(reference, Numbers):
        past, present = reference.moments(reference.own), reference.moments(now)  # type: ignore[arg-type]  # counted, not weighted
        facts += [("mean", f"{short(past.mean)} → {short(present.mean)}"), ("std", f"{short(past.std)} → {short(present.std)}")]
    if column.missing_then or column.missing_now:
        facts += [("missing", f"{column.missing_then or 0:.2%} → {column.missing_now or 0:.2%}")]
    facts += [("rows", f"{column.rows_then:,.0f} → {column.rows_now:,}")]
    yield _facts(facts)
    if len(column.answers) > 1:
        lines = "".join(
            f"<tr><td>{a.question}</td><td>{a.effect:.3f}</td><td>{a.floor:.3f}</td><td>{a.q:.2g}</td>"
            f'<td class="{a.verdict}">{a.verdict}</td></tr>'
            for a in column.answers
        )
        heads = "".join(f'<th scope="col">{name}</th>' for name in ("", "effect", "floor", "q", ""))
        yield f'<table class="answers"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
    far = [(name.replace("_", " "), f"{value:.4g}") for name, value in column.distances.items() if value is not None]
    if far:
        yield f"<details><summary>Distances</summary>{_facts(far)}</details>"


def _facts(facts: list[tuple[str, str]]) -> str:
    return '<dl class="facts">' + "".join(f"<div><dt>{n}</dt><dd>{escape(v)}</dd></div>" for n, v in facts) + "</dl>"


def _curves(name: str, reference: Numbers, now: Cells, then: Cells) -> str:
    """Both distributions over equal steps of the value, from the first edge to the last; what lies beyond is in the end bars."""
    edges = np.array(reference.edges)
    grid = np.linspace(edges[0], edges[-1], STEPS - 1)
    past, present = (_over(grid, edges, counts) for counts in (then, now))
    top, wide = max(past.max(), present.max()), 100 / STEPS
    bars, line = [], [f"M0 {TALL}"]
    for i in range(STEPS):
        tall, high = TALL * past[i] / top, TALL - TALL * present[i] / top
        lower = f"below {short(float(grid[0]))}" if i == 0 else f"from {short(float(grid[i - 1]))}"
        said = f"{lower}: {past[i]:.2%} in the reference, {present[i]:.2%} now"
        bars.append(
            f'<rect x="{i * wide:.4g}" y="{TALL - tall:.4g}" width="{wide:.4g}" height="{tall:.4g}">'
            f"<title>{escape(said)}</title></rect>"
        )
        line.append(f"L{i * wide:.4g} {high:.4g}H{(i + 1) * wide:.4g}")
    line.append(f"L100 {TALL}")
    label = f"Distributions of {name}: reference and now, from {short(float(edges[0]))} to {short(float(edges[-1]))}"
    return (
        f'<figure><svg class="both" viewBox="0 -2 100 {TALL + 2}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">'
        f'{"".join(bars)}<path d="{" ".join(line)}"/></svg><figcaption><span>≤ {escape(short(float(edges[0])))}</span>'
        f"<span>≥ {escape(short(float(edges[-1])))}</span></figcaption></figure>"
    )


def _over(grid: Floats, edges: Floats, counts: Cells) -> Floats:
    """Shares of below the grid, of its steps, of above; a bin is spread evenly over the steps that it touches."""
    shares = np.asarray(counts, np.float64) / counts.sum()
    inner = np.interp(grid, edges, np.cumsum(shares)[:-1])
    return np.concatenate(([shares[0]], np.diff(inner), [shares[-1]]))


def _bars(reference: Levels | Numbers, now: Cells, then: Cells) -> str:
    names = [*reference.names, "all others"] if isinstance(reference, Levels) else _values(reference)
    past, present = then / then.sum(), now / now.sum()
    some = [at for at in range(len(names)) if past[at] or present[at]]
    most = sorted(sorted(some, key=lambda at: -abs(past[at] - present[at]))[:LISTED])
    top = max(max(past[at], present[at]) for at in most)
    lines = "".join(
        f'<li><span class="what">{escape(_visible(names[at]))}</span>'
        f'<span><i style="width:{100 * past[at] / top:.4g}%"></i>'
        f'<i style="width:{100 * present[at] / top:.4g}%"></i></span>'
        f'<span class="n">{past[at]:.1%} → {present[at]:.1%}</span></li>'
        for at in most
    )
    more = len(some) - len(most)
    rest = f'<p class="note">and {more:,} more, whose shares have changed less</p>' if more else ""
    return f'<ol class="pairs" aria-label="Shares in the reference and now">{lines}</ol>{rest}'


def _values(reference: Numbers) -> list[str]:
    edges = np.array(reference.edges)
    if not len(edges):
        return ["any"]
    middles = (edges[:-1] / 2 + edges[1:] / 2).tolist()
    return [f"below {short(float(edges[0]))}", *map(short, middles), f"from {short(float(edges[-1]))}"]


def _visible(text: str) -> str:
    """A level so that an empty or blank one is seen."""
    seen = cut("".join(c if c.isprintable() else "�" for c in text))
    return f"“{seen}”" if not seen.strip() or seen != seen.strip() else seen


_HOW: Final = (
    "A column has drifted when it differs both significantly (false discovery rate over all columns, Benjamini and Hochberg) "
    "and materially: above its floor, or above what the parts of the reference differ by, where that is more. Effects: of "
    "numbers the Kolmogorov-Smirnov distance over bins at quantiles of the reference, of levels the total variation beyond "
    "chance, else the change in the share of rows. Bars are the reference, the line is now; what lies beyond the axis is in its "
    "end bars. Made by <code>penstock drift compare</code>."
)

_STYLE: Final = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
