"""profile: what is in the columns of an offline table or of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PenstockError
from . import screen
from .options import settings_of, write_page

if TYPE_CHECKING:
    import pandas as pd

    from ..profiling.profile import Profile
    from ..records import Described

__all__ = ["profile"]


def profile(
    table: Annotated[str | None, typer.Argument(help="An offline table, such as an event's topic.", show_default=False)] = None,
    version: Annotated[int | None, typer.Option("--version", min=0, help="Of the table; default: the newest.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A .csv or .parquet file instead of a table.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="A column of numbers to correlate the others with.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that stands by itself.")] = None,
) -> None:
    """Describe the columns of a table or file.

    Counts, missing, distinct (~ is an estimate), quantiles, histograms, frequent values; with a label also the correlation
    with it. A CSV column of which nine in ten cells are numbers is one of numbers; its other cells are told and counted as
    missing.
    """
    from ..frames.tabular import Bad, frames_of
    from ..profiling.profile import ROWS, Profile

    if (table is None) == (file is None):
        raise PenstockError("name a table, or a file", "penstock profile TABLE   or:  penstock profile --file data.csv")
    found, facts, bad = Profile(), list[tuple[str, str]](), list[Bad]()
    if file is not None:
        name, frames = file.name, frames_of(file, bad, ROWS)
    else:
        name, frames, facts = str(table), *_table(str(table), version)
    _add(found, frames, label)
    described = found.described()
    if html is not None:
        from ..profiling.page import page

        write_page(html, page(name, found.rows, described, facts, label or ""))
    said = {"name": name, "rows": found.rows, "facts": dict(facts), "label": label, "columns": described}
    said["bad_cells"] = [each._asdict() for each in bad]
    told = ", ".join([screen.count(found.rows, "row"), screen.count(len(described), "column"), *(f"{n} {v}" for n, v in facts)])
    screen.answer(said, f"{screen.paint(name, 'bold')}: {told}", screen.rows(_lines(described, label)))
    for each in bad:
        screen.note(f"  {each}")
    if html is not None:
        screen.note(f"-> open {html}")


def _add(found: Profile, frames: Iterator[pd.DataFrame], label: str | None) -> None:
    from ..profiling.column import columns_of
    from ..profiling.profile import ROWS

    for frame in frames:
        for start in range(0, max(len(frame), 1), ROWS):
            found.add(columns_of(frame.iloc[start : start + ROWS]), label)


def _lines(described: dict[str, Described], label: str | None) -> list[tuple[str, ...]]:
    from ..pages.words import percent, short

    heads = ("column", "kind", "missing", "distinct", "least", "median", "greatest", "mean", *(["r"] if label else []))
    lines = [tuple(heads)]
    for name, column in described.items():
        r = [] if not label else ["" if column.correlation is None else f"{column.correlation:+.2f}"]
        values = [column.least, column.quantiles.get("0.5"), column.greatest, column.mean]
        shown = [""] * 4 if column.kind == "text" else ["" if value is None else short(value) for value in values]
        about = "" if column.distinct_exact else "~"
        lines.append((name[:40], column.kind, percent(column.missing, column.rows), f"{about}{column.distinct:,}", *shown, *r))
    return lines


def _table(name: str, version: int | None) -> tuple[Iterator[pd.DataFrame], list[tuple[str, str]]]:
    """A Delta table in parts, and which version it is."""
    from ..offline import Tables
    from ..profiling.profile import ROWS

    table = Tables(settings_of().offline).table(name)
    if version is not None:
        table = table.at(version=version)
    batches = table.delta.to_pyarrow_dataset().to_batches(batch_size=ROWS)
    return (batch.to_pandas() for batch in batches), [("version", str(table.version))]
