"""profile: what is in the columns of an offline table or of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PenstockError
from . import screen
from .options import settings_of

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

    Counts, missing, distinct, quantiles, histograms, frequent values; with a label also the correlation with it.
    """
    from ..profiling.profile import Profile

    if (table is None) == (file is None):
        raise PenstockError("name a table, or a file", "penstock profile TABLE   or:  penstock profile --file data.csv")
    found, facts = Profile(), list[tuple[str, str]]()
    if file is not None:
        name, frames = file.name, _file(file)
    else:
        name, frames, facts = str(table), *_table(str(table), version)
    _add(found, frames, label)
    described = found.described()
    if html is not None:
        from ..profiling.page import page

        try:
            html.write_text(page(name, found.rows, described, facts, label or ""), encoding="utf-8")
        except OSError as error:
            raise PenstockError(f"{html} cannot be written: {error.strerror}", "name another file with --html") from None
    said = {"name": name, "rows": found.rows, "facts": dict(facts), "label": label, "columns": described}
    told = ", ".join([screen.count(found.rows, "row"), screen.count(len(described), "column"), *(f"{n} {v}" for n, v in facts)])
    screen.answer(said, f"{screen.paint(name, 'bold')}: {told}", screen.rows(_lines(described, label)))
    if html is not None:
        screen.note(f"-> open {html}")


def _add(found: Profile, frames: Iterator[pd.DataFrame], label: str | None) -> None:
    from ..profiling.column import columns_of
    from ..profiling.profile import ROWS

    for frame in frames:
        for start in range(0, max(len(frame), 1), ROWS):
            found.add(columns_of(frame.iloc[start : start + ROWS]), label)


def _lines(described: dict[str, Described], label: str | None) -> list[tuple[str, ...]]:
    from ..profiling.page import percent, short

    heads = ("column", "kind", "missing", "distinct", "least", "median", "greatest", "mean", *(["r"] if label else []))
    lines = [tuple(heads)]
    for name, column in described.items():
        r = [] if not label else ["" if column.correlation is None else f"{column.correlation:+.2f}"]
        values = [column.least, column.quantiles.get("0.5"), column.greatest, column.mean]
        shown = [""] * 4 if column.kind == "text" else ["" if value is None else short(value) for value in values]
        about = "" if column.distinct_exact else "~"
        lines.append((name[:40], column.kind, percent(column.missing, column.rows), f"{about}{column.distinct:,}", *shown, *r))
    return lines


def _file(path: Path) -> Iterator[pd.DataFrame]:
    """A file in parts."""
    import pandas as pd

    from ..profiling.profile import ROWS

    if not path.is_file():
        raise PenstockError(f"there is no file {path}", "penstock profile --file data.csv   (or data.parquet)")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            for batch in parquet.ParquetFile(path).iter_batches(ROWS):
                yield batch.to_pandas()
        elif ".csv" in path.suffixes:
            yield pd.read_csv(path)  # whole, so that no part of a column is taken for another kind
        else:
            raise PenstockError(f"{path.name} is neither .csv nor .parquet", "convert it, or use ps.profile(frame) in Python")
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise PenstockError(f"{path} cannot be read: {error}", "is it really what its name says?") from None


def _table(name: str, version: int | None) -> tuple[Iterator[pd.DataFrame], list[tuple[str, str]]]:
    """A Delta table in parts, and which version it is."""
    import deltalake
    from deltalake.exceptions import DeltaError

    from ..mistake import nearest
    from ..profiling.profile import ROWS

    folder = settings_of().data / "tables"
    there = sorted(path.name for path in folder.iterdir() if (path / "_delta_log").is_dir()) if folder.is_dir() else []
    if name not in there:
        fix = nearest(name, there) if there else "penstock up   and publish events: tables are written as they come"
        raise PenstockError(f"there is no table {name} in {folder}", fix)
    try:
        table: Any = deltalake.DeltaTable(str(folder / name), version=version)
    except DeltaError:
        newest = deltalake.DeltaTable(str(folder / name)).version()
        raise PenstockError(f"table {name} has no version {version} (any more)", f"the newest is {newest}") from None
    batches = table.to_pyarrow_dataset().to_batches(batch_size=ROWS)
    return (batch.to_pandas() for batch in batches), [("version", str(table.version()))]
