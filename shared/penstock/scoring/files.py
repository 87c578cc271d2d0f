"""A file to be scored, whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import DefinitionError
from penstock.model import Model

from .columnar import parquet_of
from .lines import lines_of
from .sources import Source, Wanted

__all__ = ["file_of"]


def file_of(path: Path, model: Model) -> Source:
    """A .parquet, .csv or .jsonl file. DefinitionError where it is none, or lacks an input of the model."""
    if not path.is_file():
        raise DefinitionError(f"no such file: {path}", "give the path of a .parquet, .csv or .jsonl file")
    wanted = Wanted.of(model)
    if path.suffix == ".parquet":
        return parquet_of(path, wanted)
    if path.suffix in (".csv", ".jsonl", ".ndjson"):
        return lines_of(path, wanted)
    packed = f"gunzip --keep {path}" if path.suffix == ".gz" else ""
    fix = packed or "convert it, for instance with pandas: frame.to_parquet('rows.parquet')"
    raise DefinitionError(f"{path} is no .parquet, .csv or .jsonl file", fix)
