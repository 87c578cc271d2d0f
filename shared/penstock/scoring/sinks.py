"""Where scores go: a Delta table or a Parquet file. Parts are written in order, each whole or not at all, so that how many are
there says where to go on.

What is written says what made it (`penstock.lineage`: schema metadata of the file, the description of the table). Scores of
another job are never mixed in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from penstock.errors import PenstockError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LINEAGE", "DeltaSink", "ParquetSink", "Sink", "sink_of"]

LINEAGE: Final = "penstock.lineage"


class Sink(Protocol):
    """`job` and `lineage` are given when it is made."""

    def begin(self) -> int:
        """How many parts it has. PenstockError where it has something else."""

    def put(self, number: int, part: pa.Table) -> None:
        """Take the next part."""

    def finish(self) -> None:
        """All parts are there."""

    def batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """What was written: some of its columns, or all."""


def sink_of(out: str, job: str, lineage: Mapping[str, Any]) -> Sink:
    """A Parquet file where the name says so, else a Delta table."""
    return ParquetSink(Path(out), job, lineage) if out.endswith(".parquet") else DeltaSink(out, job, lineage)


def _other(out: object, found: str) -> PenstockError:
    return PenstockError(f"{out} {found}", "name another with --out, or remove it")


class DeltaSink:
    """A Delta table, a folder or `s3://...`. A part is a commit with its number as application transaction: one that is committed
    twice, also by two processes at once, is refused by the table's own log."""

    def __init__(self, out: str, job: str, lineage: Mapping[str, Any]) -> None:
        from penstock.offline import Location

        folder, _, name = out.rstrip("/").rpartition("/")
        location = Location(folder or ".")
        self._uri, self._options, self._job, self._lineage = location.uri(name), location.options, job, lineage
        self._out, self._away = out, location.away
        if not location.remote:
            Path(location.root).mkdir(parents=True, exist_ok=True)

    def begin(self) -> int:
        delta = self._delta()
        if delta is None:
            if "://" not in self._uri and Path(self._uri).exists() and any(Path(self._uri).iterdir()):
                raise _other(self._out, "is there, and no table of scores")
            return 0
        if self._job not in (delta.metadata().description or ""):
            raise _other(self._out, "is another table, or holds other scores")
        last = delta.transaction_version(self._job)
        return 0 if last is None else int(last) + 1

    def _delta(self) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self._uri, storage_options=self._options)
        except TableNotFoundError:
            return None
        except OSError as error:
            raise self._away(error) from error

    def put(self, number: int, part: pa.Table) -> None:
        from deltalake import CommitProperties, Transaction, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        said = json.dumps({**self._lineage, "job": self._job}, sort_keys=True)
        properties = CommitProperties(app_transactions=[Transaction(self._job, number)], custom_metadata={LINEAGE: said})
        try:
            if self.begin() != number:
                raise CommitFailedError
            write_deltalake(
                self._uri, part, mode="append", description=said,
                storage_options=self._options, commit_properties=properties,
            )  # fmt: skip
        except CommitFailedError:
            fix = "let it finish; the same command again says so"
            raise PenstockError(f"another process writes these scores to {self._out}", fix) from None
        except (DeltaError, OSError) as error:
            raise self._away(error) from error

    def finish(self) -> None:
        """Its log says it."""

    def batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        delta = self._delta()
        if delta is not None:
            yield from delta.to_pyarrow_dataset().scanner(columns=columns).to_batches()


class ParquetSink:
    """One file, put together at the end of parts that lie beside it meanwhile."""

    def __init__(self, out: Path, job: str, lineage: Mapping[str, Any]) -> None:
        self._out, self._job, self._lineage = out, job, lineage
        self._parts = out.with_name(f"{out.name}.parts")
        self._complete = False

    def begin(self) -> int:
        if self._out.exists():
            if self._told(self._out) != self._job:
                raise _other(self._out, "holds other scores, or something else")
            self._complete = True
            return 1 << 62
        self._parts.mkdir(parents=True, exist_ok=True)
        there = sorted(self._parts.glob("*.parquet"))
        if there and self._told(there[0]) != self._job:
            raise _other(self._parts, "holds parts of other scores")
        return len(there)

    def _told(self, path: Path) -> str | None:
        from pyarrow import ArrowException, parquet

        try:
            metadata = parquet.read_schema(path).metadata or {}
        except (ArrowException, OSError):
            return None
        return str(json.loads(metadata.get(LINEAGE.encode(), b"{}")).get("job"))

    def put(self, number: int, part: pa.Table) -> None:
        from pyarrow import parquet

        said = json.dumps({**self._lineage, "job": self._job}, sort_keys=True)
        place = self._parts / f"{number:08}.parquet"
        draft = place.with_suffix(".draft")
        parquet.write_table(part.replace_schema_metadata({LINEAGE: said}), draft, compression="zstd")
        draft.replace(place)

    def finish(self) -> None:
        from pyarrow import parquet

        if self._complete:
            return
        parts, draft = sorted(self._parts.glob("*.parquet")), self._out.with_name(f"{self._out.name}.draft")
        with parquet.ParquetWriter(draft, parquet.read_schema(parts[0]), compression="zstd") as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part, partitioning=None))
        draft.replace(self._out)
        shutil.rmtree(self._parts)

    def batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        from pyarrow import parquet

        yield from parquet.ParquetFile(self._out).iter_batches(columns=columns)
