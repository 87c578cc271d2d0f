"""A profile as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..pages.document import document
from ..pages.document import facts as listed
from ..pages.drawing import bars, histogram
from ..pages.words import cut, escape, percent, short, visible
from ..records import Described

__all__ = ["page"]


def page(title: str, rows: int, columns: Mapping[str, Described], facts: Sequence[tuple[str, str]] = (), label: str = "") -> str:
    """The document. `facts` are further pairs for its head, such as the version of a table; `label` names the column of the
    correlations."""
    missing = sum(c.missing for c in columns.values())
    cells = rows * len(columns)
    head = [
        ("rows", f"{rows:,}"),
        ("columns", f"{len(columns):,}"),
        ("missing", percent(missing, cells) if cells else "–"),
        *facts,
        *([("label", label)] if label else []),
    ]
    lines = "".join(_line(at, name, column, bool(label)) for at, (name, column) in enumerate(columns.items()))
    cards = "".join(_card(at, name, column, label) for at, (name, column) in enumerate(columns.items()))
    of_label = f'<th scope="col" class="n">r with {escape(label)}</th>' if label else ""
    body = (
        '<section class="tile index"><h2>Columns</h2><div class="wide"><table><thead><tr>'
        '<th scope="col">column</th><th scope="col">kind</th><th scope="col" class="n">missing</th>'
        f'<th scope="col" class="n">distinct</th><th scope="col" class="n">least</th><th scope="col" class="n">median</th>'
        f'<th scope="col" class="n">greatest</th>{of_label}</tr></thead><tbody>{lines}</tbody></table></div></section>\n'
        f'<div class="cards">{cards}</div>\n'
    )
    return document(title, "profile", head, body, _HOW)


def _line(at: int, name: str, column: Described, correlated: bool) -> str:
    texts = column.kind == "text"
    cells = [percent(column.missing, column.rows), _distinct(column)]
    cells += ["", "", ""] if texts else map(short, (column.least, column.quantiles.get("0.5"), column.greatest))
    if correlated:
        cells.append("" if column.correlation is None else f"{column.correlation:+.2f}")
    numbers = "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
    return f'<tr><th scope="row"><a href="#c{at}">{escape(cut(name))}</a></th><td>{column.kind}</td>{numbers}</tr>'


def _card(at: int, name: str, column: Described, label: str) -> str:
    return (
        f'<section class="tile" id="c{at}" aria-labelledby="h{at}"><h2 id="h{at}">{escape(cut(name))} '
        f"<small>{column.kind}</small></h2>{_missing(column)}{''.join(_parts(name, column, label))}</section>\n"
    )


def _parts(name: str, column: Described, label: str) -> Iterator[str]:
    """What there is to say of a column; a part that would be empty is left out."""
    texts = column.kind == "text"
    if column.kind == "empty":
        yield '<p class="none">Every value is missing.</p>'
        return
    if not column.counts:
        yield '<p class="none">No finite value.</p>'
    elif len(column.counts) == 1:
        same = "Every text has the same length" if texts else "Every value is the same"
        yield f'<p class="none">{same}: {escape(short(column.least))}.</p>'
    elif column.kind != "bool":
        yield _histogram(name, column)
    facts = [("distinct", _distinct(column))]
    if not column.missing:
        facts += [("missing", "none")]
    if column.kind != "bool" and len(column.counts) > 1:
        least, greatest = ("shortest", "longest") if texts else ("least", "greatest")
        facts += [(least, short(column.least)), (greatest, short(column.greatest))]
        facts += [("median", short(column.quantiles.get("0.5")))] if column.kind == "time" else []
    if column.mean is not None and (column.kind == "bool" or len(column.counts) > 1):
        facts += [("share true" if column.kind == "bool" else "mean length" if texts else "mean", short(column.mean))]
    if column.std is not None and column.kind != "bool" and not texts:
        facts += [("std", short(column.std))]
    if column.infinite:
        facts += [("infinite", f"{column.infinite:,}")]
    yield listed(facts)
    if column.quantiles and column.kind in ("int", "float") and len(column.counts) > 1:
        yield _quantiles(column)
    if column.frequent and 1 < column.distinct < column.rows - column.missing and (texts or column.distinct <= 50):
        yield _frequent(column)
    elif texts and column.frequent_low_by:
        yield f'<p class="note">No text makes up more than {percent(2 * column.frequent_low_by, column.rows)}.</p>'
    if label and column.correlation is not None:
        yield _correlation(column, label)


def _missing(column: Described) -> str:
    if not column.missing:
        return ""
    there = f"{100 - 100 * column.missing / column.rows:.4g}%"
    return (
        f'<p class="missing" title="{column.missing:,} of {column.rows:,}"><span class="bar"><i style="width:{there}"></i></span>'
        f" {percent(column.missing, column.rows)} missing</p>"
    )


def _histogram(name: str, column: Described) -> str:
    what = f"{'lengths of ' if column.kind == 'text' else ''}{name}"
    said = f"Histogram of {what}: {len(column.counts)} bins from {short(column.edges[0])} to {short(column.edges[-1])}"
    return histogram(column.counts, list(map(short, column.edges)), said, "characters" if column.kind == "text" else "")


def _quantiles(column: Described) -> str:
    heads = "".join(f"<th scope='col'>{float(share):.0%}</th>" for share in column.quantiles)
    cells = "".join(f"<td>{escape(short(value))}</td>" for value in column.quantiles.values())
    off = f' title="within {column.error:.2g} of their size"' if column.error else ' title="exact"'
    body = f"<thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody>"
    return f'<div class="wide"><table class="quantiles"{off}>{body}</table></div>'


def _frequent(column: Described) -> str:
    present = max(column.rows - column.missing, 1)
    lines = [(_seen(f.value), f.count / present, (f"{f.count:,}", percent(f.count, present))) for f in column.frequent]
    low = f'<p class="note">Counts are low by at most {column.frequent_low_by:,}.</p>' if column.frequent_low_by else ""
    return bars(lines, "Most frequent values") + low


def _correlation(column: Described, label: str) -> str:
    r = column.correlation or 0.0
    left, width = (50 + 50 * min(r, 0.0)), 50 * abs(r)
    return (
        f'<p class="r"><span>r with {escape(label)}</span><span class="axis"><i class="{"down" if r < 0 else "up"}" '
        f'style="left:{left:.4g}%;width:{width:.4g}%"></i></span><b>{r:+.3f}</b></p>'
    )


def _distinct(column: Described) -> str:
    return f"{'' if column.distinct_exact else 'about '}{column.distinct:,}"


def _seen(value: float | str | bool) -> str:
    return visible(value) if isinstance(value, str) else short(value)


_HOW: Final = (
    "Means, deviations and correlations (Pearson) are exact to rounding. Distinct values are counted one by one up to 1,023, "
    "then estimated (standard error 3.1 %). Quantiles are exact while at most 1,024 numbers differ; beyond, hold the pointer "
    "over them for their error. Infinite numbers are in no figure but their own count. Made by <code>penstock profile</code>."
)
