"""What is scored in bulk: a file or an offline table, in parts that several processes read, each on its own.

    .parquet            a part is a row group
    .csv, .jsonl        a part is some 8 MiB of whole lines; a newline between quotes ends no line of a CSV file
    an offline table    a part is a file of one version; rows are joined with their events where the model reads those

A part gives chunks: which rows, their inputs as a matrix, and why a row has none. Nothing is left out: a row that cannot be
read is there, with its cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from penstock.inputs import Floats, Matrix
from penstock.model import Model

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS", "Chunk", "Part", "Source", "Wanted", "rounded"]

ROWS: Final = 65_536
"""Of one chunk, at most: some 5 MB of 20 inputs."""


class Chunk(NamedTuple):
    """Some rows of a part: columns that say which, float32 (rows, inputs), and by index why a row cannot be read."""

    place: pa.Table
    X: Matrix
    bad: dict[int, str]


class Part(Protocol):
    """A part of a source; it can be sent to another process."""

    @property
    def size(self) -> int:
        """In the unit of the source."""

    def read(self) -> Iterator[Chunk]: ...


@dataclass(frozen=True)
class Source:
    """`said` identifies it for ever: part of the lineage of what is made from it."""

    said: dict[str, Any]
    parts: Sequence[Part]
    unit: str = "rows"


@dataclass(frozen=True)
class Wanted:
    """What a model reads: its inputs, in order, those that a line may leave out, and how the event and its id are called."""

    inputs: tuple[str, ...]
    optional: frozenset[str]
    event: str
    id: str

    @classmethod
    def of(cls, model: Model) -> Wanted:
        event = model.scores
        optional = frozenset(repr(c) for c in event.columns.values() if c.optional)
        return cls(model.inputs, optional, repr(event), (event.id or event.key).name)

    def named(self, there: Sequence[str]) -> str | None:
        """What the column with the event's id is called, if it is there."""
        return next((name for name in (self.id, f"{self.event}.{self.id}", "id") if name in there), None)

    def may_miss(self, name: str) -> bool:
        """Whether an input can be missing: a feature always, a column of the event where it is declared so."""
        return name in self.optional or not name.startswith(f"{self.event}.")


def rounded(wide: Floats) -> Matrix:
    """As every scorer takes it; beyond float32 is infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(wide, np.float32)
