"""A comparison as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from ..pages.document import chip, document
from ..pages.document import facts as listed
from ..pages.drawing import LISTED, distributions, key, pairs
from ..pages.words import cut, escape, short
from ..statistics.drift import Column, Counted
from ..statistics.reference import Levels, Numbers

if TYPE_CHECKING:
    from .result import Comparison

__all__ = ["page"]


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
    lines = "".join(_line(at, column) for at, column in enumerate(columns))
    cards = "".join(_card(at, column, found.counted.get(column.name)) for at, column in enumerate(columns))
    together = f'<p class="why">All columns together: {escape(found.together.why)}.</p>' if found.together is not None else ""
    body = (
        '<section class="tile index"><h2>Columns</h2><div class="wide"><table><thead><tr><th scope="col">column</th>'
        '<th scope="col">verdict</th><th scope="col">effect and floor</th><th scope="col" class="n">effect</th>'
        f'<th scope="col" class="n">q</th><th scope="col">why</th></tr></thead><tbody>{lines}</tbody></table></div>'
        f"{together}</section>\n"
        f'<div class="cards">{cards}</div>\n'
    )
    return document(title, "drift", head, body, _HOW, chip(found.verdict), found.why)


def _line(at: int, column: Column) -> str:
    bar = ""
    if column.effect is not None and column.floor:
        far = min(column.effect / (4 * column.floor), 1.0)  # the floor is a quarter of the way
        over = " over" if column.verdict == "drift" else ""
        bar = f'<div class="effect{over}"><i style="width:{100 * far:.4g}%"></i><b style="left:25%"></b></div>'
    numbers = "".join(f'<td class="n">{"" if v is None else f"{v:.3f}"}</td>' for v in (column.effect,))
    numbers += f'<td class="n">{"" if column.q is None else f"{column.q:.2g}"}</td>'
    return (
        f'<tr><th scope="row"><a href="#c{at}">{escape(cut(column.name))}</a></th><td>{chip(column.verdict)}</td><td>{bar}</td>'
        f'{numbers}<td class="why">{escape(column.why)}</td></tr>'
    )


def _card(at: int, column: Column, counted: Counted | None) -> str:
    return (
        f'<section class="tile" id="c{at}" aria-labelledby="h{at}"><h2 id="h{at}"><span>{escape(cut(column.name))} '
        f"<small>{escape(column.kind)}</small></span>{chip(column.verdict)}</h2>"
        f'<p class="why">{escape(column.why[:1].upper() + column.why[1:])}.</p>'
        f"{'' if counted is None else ''.join(_parts(column, counted))}</section>\n"
    )


def _parts(column: Column, counted: Counted) -> Iterator[str]:
    reference, now, then = counted.reference, counted.now, counted.then
    body, before = reference.body(now), reference.body(then)
    if body.sum() and before.sum():
        if isinstance(reference, Levels) or len(reference.edges) <= LISTED + 1:
            yield pairs(_names(reference), before, body)
        elif np.isfinite(reference.edges[-1] - reference.edges[0]):
            yield distributions(column.name, reference.edges, before, body)
        yield key([("then", "reference"), ("now", "now")])
    facts = []
    if isinstance(reference, Numbers):
        past, present = reference.moments(reference.own), reference.moments(now)  # type: ignore[arg-type]  # counted, not weighted
        facts += [("mean", f"{short(past.mean)} → {short(present.mean)}"), ("std", f"{short(past.std)} → {short(present.std)}")]
    if column.missing_then or column.missing_now:
        facts += [("missing", f"{column.missing_then or 0:.2%} → {column.missing_now or 0:.2%}")]
    facts += [("rows", f"{column.rows_then:,.0f} → {column.rows_now:,}")]
    yield listed(facts)
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
        yield f"<details><summary>Distances</summary>{listed(far)}</details>"


def _names(reference: Levels | Numbers) -> list[str]:
    """Of the cells of a picture."""
    if isinstance(reference, Levels):
        return [*reference.names, "all others"]
    edges = np.array(reference.edges)
    if not len(edges):
        return ["any"]
    middles = (edges[:-1] / 2 + edges[1:] / 2).tolist()
    return [f"below {short(float(edges[0]))}", *map(short, middles), f"from {short(float(edges[-1]))}"]


_HOW: Final = (
    "A column has drifted when it differs both significantly (false discovery rate over all columns, Benjamini and Hochberg) "
    "and materially: above its floor, or above what the parts of the reference differ by, where that is more. Effects: of "
    "numbers the Kolmogorov-Smirnov distance over bins at quantiles of the reference, of levels the total variation beyond "
    "chance, else the change in the share of rows. Bars are the reference, the line is now; what lies beyond the axis is in its "
    "end bars. Made by <code>penstock drift compare</code>."
)
