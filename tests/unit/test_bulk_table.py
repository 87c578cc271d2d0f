"""What a part of a bulk scoring becomes has the same columns, however many rows it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.inputs import Floats, Matrix
from penstock.scoring.answers import Serving
from penstock.scoring.bulk import _answered
from penstock.scoring.scorers import Member
from penstock.scoring.sources import Chunk

CLASSES = ("gate", "front")


def shares(X: Matrix) -> Floats:  # noqa: N803
    return np.tile([0.25, 0.75], (len(X), 1))


def yes(X: Matrix) -> Floats:  # noqa: N803
    return np.full(len(X), 0.75)


CLASSES_OF = Member("v1", "d", SimpleNamespace(score=shares), None, "multiclass", CLASSES)
YES_OF = Member("v1", "d", SimpleNamespace(score=yes))


def chunk(rows: int) -> Chunk:
    return Chunk(pa.table({"row": pa.array(range(rows), pa.int64())}), np.zeros((rows, 1), np.float32), {})


@pytest.mark.parametrize("member", [YES_OF, CLASSES_OF])
@pytest.mark.parametrize("sizes", [(0,), (2, 0), (0, 2)])
def test_a_part_without_rows_has_the_columns_of_others(member: Member, sizes: tuple[int, ...]) -> None:
    def read() -> Iterator[Chunk]:
        yield from map(chunk, sizes)

    def table(read: Callable[[], Iterator[Chunk]]) -> pa.Table:
        part: Any = SimpleNamespace(read=read)
        return _answered(part, "door", Serving(champion=member))

    found, other = table(read), table(lambda: iter([chunk(3)]))
    assert found.schema == other.schema and len(found) == sum(sizes)
