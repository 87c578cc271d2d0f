"""From tables to streams of events: what the data modules of the examples share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Stream", "merged", "written"]

ROWS_AT_ONCE: Final = 16_384
"""Rows turned into Python objects together: fast, and never a whole year of them in memory."""


class Stream(NamedTuple):
    """How the rows of a table become events: the columns that hold the record's key, the id and the time."""

    key: str
    id: str
    time: str


def merged(tables: Mapping[str, pd.DataFrame], streams: Mapping[str, Stream]) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Every event as (event, key, JSON value, time in microseconds), in the order of (time, kind, place in its table)."""
    names = list(streams)
    times = np.concatenate([_microseconds(tables[name][stream.time]) for name, stream in streams.items()])
    ranks = np.repeat(np.arange(len(names)), [len(tables[name]) for name in names])
    order = np.argsort(times, kind="stable")
    sources = [_encoded(tables[name], stream) for name, stream in streams.items()]
    for rank, time in zip(ranks[order].tolist(), times[order].tolist(), strict=True):
        key, value = next(sources[rank])
        yield names[rank], key, value, time


def written(tables: Mapping[str, pd.DataFrame], streams: Mapping[str, Stream], folder: Path) -> None:
    """One file of JSON lines per event: `<event>.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stream in streams.items():
        with (folder / f"{name}.jsonl").open("wb") as lines:
            for _, value in _encoded(tables[name], stream):
                lines.write(value + b"\n")


def _encoded(table: pd.DataFrame, stream: Stream) -> Iterator[tuple[bytes, bytes]]:
    """Each row as (key, JSON value); a missing number is NaN here and null there."""
    encode = msgspec.json.Encoder().encode
    names = list(table.columns)
    where = names.index(stream.key)
    for at in range(0, len(table), ROWS_AT_ONCE):
        part = table.iloc[at : at + ROWS_AT_ONCE]
        columns = [_iso(part[name]) if name == stream.time else part[name].tolist() for name in names]
        for row in zip(*columns, strict=True):
            yield row[where].encode(), encode(dict(zip(names, row, strict=True)))


def _microseconds(times: pd.Series) -> NDArray[np.int64]:
    since: NDArray[np.int64] = times.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
    return since


def _iso(times: pd.Series) -> list[str]:
    seconds = times.dt.tz_localize(None).to_numpy(dtype="datetime64[s]")
    return [f"{text}Z" for text in np.datetime_as_string(seconds).tolist()]
