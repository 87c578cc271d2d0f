"""Files of rows as pandas frames: Parquet and CSV, and what is wrong in a CSV."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zipfile import BadZipFile

from ..errors import PenstockError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NAMED", "Bad", "frame_of", "frames_of"]

MOSTLY: Final = 0.9
"""Of the cells of a CSV column that are filled: when so many are numbers, it is a column of numbers, and the others are bad."""

ISO: Final = re.compile(r"\d{4}-\d\d-\d\d")
NAMED: Final = 3
"""Bad cells of a column that are told one by one."""


class Bad(NamedTuple):
    """Cells of a column of numbers that are none: how many, and the first, each with its row, counted from 1."""

    column: str
    cells: int
    first: dict[int, str]

    def __str__(self) -> str:
        named = [f"row {row}: {text!r}" for row, text in self.first.items()] + ["..."] * (self.cells > NAMED)
        said = f"{self.cells:,} cell{'' if self.cells == 1 else 's'}"
        return f"{self.column}: {said} no number, counted as missing ({', '.join(named)})"


def frames_of(path: Path, bad: list[Bad], rows: int) -> Iterator[pd.DataFrame]:
    """A file in parts of so many rows; `bad` learns which cells of a CSV are not of their column's kind. A CSV column of which
    nine in ten cells are numbers is one of numbers, its other cells are missing. PenstockError: no such file, or not readable."""
    import pandas as pd

    if not path.is_file():
        raise PenstockError(f"there is no file {path}", "name a .csv or .parquet file")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            for batch in parquet.ParquetFile(path).iter_batches(rows):
                yield batch.to_pandas()
        elif ".csv" in path.suffixes:
            frame = pd.read_csv(path, low_memory=False)  # whole, so that no part of a column is taken for another kind
            if not isinstance(frame.index, pd.RangeIndex):  # the first cells were taken for names of rows, all others moved
                raise ValueError("its rows have more cells than its first line has names")
            bad += _mended(frame)
            yield frame
        else:
            raise PenstockError(f"{path.name} is neither .csv nor .parquet", "convert it, or pass a frame in Python")
    except (ValueError, OSError, EOFError, ImportError, zlib.error, LZMAError, BadZipFile) as error:
        raise PenstockError(f"{path} cannot be read: {error}", "is it really what its name says?") from None


def frame_of(path: Path, bad: list[Bad] | None = None) -> pd.DataFrame:
    """A file whole; a CSV column whose texts are all times (ISO 8601) is one of times."""
    if path.suffix == ".parquet" and path.is_file():
        import pyarrow.parquet as parquet

        try:
            whole: pd.DataFrame = parquet.read_table(path).to_pandas()
        except (ValueError, OSError) as error:
            raise PenstockError(f"{path} cannot be read: {error}", "is it really what its name says?") from None
        return whole
    frame = next(frames_of(path, [] if bad is None else bad, 0))
    for name in frame.columns:
        frame[name] = _timed(frame[name])
    return frame


def _timed(texts: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    present = texts.dropna()
    if not len(present) or not isinstance(present.iloc[0], str) or not ISO.match(present.iloc[0]):
        return texts
    try:
        return pd.to_datetime(texts, format="ISO8601")
    except ValueError:
        return texts


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
        whole = texts[there & ~wrong].astype(str).str.fullmatch(r"\s*[+-]?\d{1,18}\s*").all()  # what int64 holds
        first = texts[wrong].head(NAMED)
        named = {int(at) + 1: str(text)[:40] for at, text in zip(first.index, first, strict=True)}
        frame[name] = numbers.astype("Int64") if whole else numbers
        yield Bad(str(name), int(wrong.sum()), named)
