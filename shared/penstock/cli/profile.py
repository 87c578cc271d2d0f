"""profile: what is in the columns of an offline table or of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from ..errors import PenstockError
from . import screen
from .options import settings_of

if TYPE_CHECKING:
    import pandas as pd

    from ..profiling.profile import Profile
    from ..records import Described

__all__ = ["profile"]

MOSTLY: Final = 0.9
"""Of the cells of a CSV column that are filled: when so many are numbers, it is a column of numbers, and the others are bad."""

NAMED: Final = 3
"""Bad cells of a column that are told one by one."""


class Bad(NamedTuple):
    """Cells of a column of numbers that are none: how many, and the first, each with its row, counted from 1."""

    column: str
    cells: int
    first: dict[int, str]

    def __str__(self) -> str:
        named = [f"row {row}: {text!r}" for row, text in self.first.items()] + ["..."] * (self.cells > NAMED)
        return f"{self.column}: {screen.count(self.cells, 'cell')} no number, counted as missing ({', '.join(named)})"


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
    from ..profiling.profile import Profile

    if (table is None) == (file is None):
        raise PenstockError("name a table, or a file", "penstock profile TABLE   or:  penstock profile --file data.csv")
    found, facts, bad = Profile(), list[tuple[str, str]](), list[Bad]()
    if file is not None:
        name, frames = file.name, _file(file, bad)
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


def _file(path: Path, bad: list[Bad]) -> Iterator[pd.DataFrame]:
    """A file in parts; `bad` learns which cells of a CSV are not of their column's kind."""
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
            frame = pd.read_csv(path, low_memory=False)  # whole, so that no part of a column is taken for another kind
            bad += _mended(frame)
            yield frame
        else:
            raise PenstockError(f"{path.name} is neither .csv nor .parquet", "convert it, or use ps.profile(frame) in Python")
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise PenstockError(f"{path} cannot be read: {error}", "is it really what its name says?") from None


def _mended(frame: pd.DataFrame) -> Iterator[Bad]:
    """Make columns that are mostly numbers columns of numbers, in place; what they lose."""
    import pandas as pd

    for name in frame.columns:
        texts = frame[name]
        if not (pd.api.types.is_object_dtype(texts.dtype) or pd.api.types.is_string_dtype(texts.dtype)):
            continue
        numbers, there = pd.to_numeric(texts, errors="coerce"), texts.notna()
        wrong = there & numbers.isna()
        if not wrong.any() or wrong.sum() > (1 - MOSTLY) * there.sum():
            continue
        whole = texts[there & ~wrong].astype(str).str.fullmatch(r"\s*[+-]?\d+\s*").all()
        first = texts[wrong].head(NAMED)
        named = {int(at) + 1: str(text)[:40] for at, text in zip(first.index, first, strict=True)}
        frame[name] = numbers.astype("Int64") if whole else numbers
        yield Bad(str(name), int(wrong.sum()), named)


def _table(name: str, version: int | None) -> tuple[Iterator[pd.DataFrame], list[tuple[str, str]]]:
    """A Delta table in parts, and which version it is."""
    from ..offline import Tables
    from ..profiling.profile import ROWS

    table = Tables(settings_of().offline).table(name)
    if version is not None:
        table = table.at(version=version)
    batches = table.delta.to_pyarrow_dataset().to_batches(batch_size=ROWS)
    return (batch.to_pandas() for batch in batches), [("version", str(table.version))]
