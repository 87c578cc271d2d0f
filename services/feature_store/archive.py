"""Offline tables: events, rows, predictions and outcomes as Delta on Parquet, each record exactly once.

A commit carries the data and, per topic partition, the last offset included, in one atomic file; whoever writes first reads
that offset and trims what is there already, through the same handle, so a second writer's commit is refused. There is no
other position: on restart reading goes on where the table ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from penstock.codec import EventDecoder
from penstock.errors import Refused
from penstock.event import Event
from penstock.log import Batch, Gap, Log, LogError, Partition, Reader, Send
from penstock.records import Commit, Outcome, Prediction, Row
from penstock.topics import Topics

__all__ = ["Archive", "Table"]

FLUSH_ROWS = 20_000
"""A commit costs 30 ms whatever it holds, so rows are gathered; large ones also make good files."""
FLUSH_SECONDS = 30.0
PAUSE_SECONDS = 1.0
"""Between two tries while the log or the disk is away."""
COMPACT_EVERY = 100
"""Commits between compactions: appending slows down with the number of active files (15 to 85 ms after 600 commits)."""


class Table:
    """One Delta table fed by the partitions of one topic."""

    def __init__(self, path: Path, topic: str, identity: str) -> None:
        self.path, self.topic, self._identity = path, topic, identity
        self._table: Any = None
        self._open()

    def _open(self) -> None:
        import deltalake

        if self._table is None and deltalake.DeltaTable.is_deltatable(str(self.path)):
            self._table = deltalake.DeltaTable(str(self.path))

    def _app(self, number: int) -> str:
        """The writer's name in the transaction log; the log's identity keeps a recreated topic from being trimmed away."""
        return f"{self._identity}/{self.topic}/{number}"

    def position(self, number: int) -> int:
        """The next offset to write for a partition."""
        if self._table is None:
            return 0
        version = self._table.transaction_version(self._app(number))
        return 0 if version is None else int(version) + 1

    def append(self, columns: dict[str, list[Any]]) -> int:
        """Append rows (columns `partition` and `offset` among them) that are not there yet; the table's new version."""
        import pyarrow as pa
        from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

        if self._table is not None:
            self._table.update_incremental()
        data = pa.table({name: _array(values) for name, values in columns.items()})
        if self._table is not None:
            known = {number: self.position(number) for number in set(columns["partition"])}
            keep = [o >= known[p] for p, o in zip(columns["partition"], columns["offset"], strict=True)]
            data = data.filter(pa.array(keep))
        last: dict[int, int] = {}
        for number, offset in zip(data["partition"].to_pylist(), data["offset"].to_pylist(), strict=True):
            last[number] = max(offset, last.get(number, -1))
        if last:
            said = CommitProperties(app_transactions=[Transaction(self._app(n), o) for n, o in sorted(last.items())])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            target = self._table if self._table is not None else str(self.path)
            write_deltalake(
                target,
                data,
                mode="append",
                commit_properties=said,
                schema_mode="merge" if self._table is not None else None,
            )
            self._table = DeltaTable(str(self.path))
        version = int(self._table.version()) if self._table is not None else 0
        if last and version and version % COMPACT_EVERY == 0:
            self._table.optimize.compact()
        return version


def _array(values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.float64()) if all(v is None or isinstance(v, float) for v in values) else pa.array(values)


class Archive:
    """Reads every data topic of the project whole and keeps its table. `turn` drives it, as a lane's does."""

    name = "archive"

    def __init__(self, topics: Topics, log: Log, folder: Path, identity: str = "local") -> None:
        self._topics, self._log, self._folder, self._identity = topics, log, folder, identity
        self._logger = structlog.get_logger(service="feature_store", part="archive")
        self._shapes: dict[str, Callable[[bytes], dict[str, Any] | None]] = {}
        for event in topics.project.events:
            self._shapes[event.topic] = _event_shape(event)
        for event in topics.project.topology.reads:
            self._shapes[topics.rows(event)] = _row_shape
        for model in topics.project.models:
            self._shapes[topics.predictions(model.name)] = _prediction_shape
            self._shapes[topics.outcomes(model.name)] = _outcome_shape
        self._tables: dict[str, Table] = {}
        self._pending: dict[str, list[dict[str, Any]]] = {}
        self._reader: Reader | None = None

    async def turn(self, wait: float = 0.0) -> bool:
        """Take what is new; commit the tables that have gathered enough."""
        if self._reader is None:
            self._reader = await self._log.reader(self._open())
        batches = await self._reader.read(50_000, wait)
        for batch in batches:
            self._gather(batch)
        for topic, rows in self._pending.items():
            if len(rows) >= FLUSH_ROWS:
                await self._commit(topic)
        return bool(batches)

    async def run(self) -> None:
        """Turn until cancelled; what waits longer than `FLUSH_SECONDS` is committed however little it is. After a fault of the
        log or the disk it goes on from where the tables end."""
        due = time.monotonic() + FLUSH_SECONDS
        while True:
            try:
                await self.turn(0.5)
                if time.monotonic() > due:
                    await self.flush()
                    due = time.monotonic() + FLUSH_SECONDS
            except (LogError, OSError) as error:
                if isinstance(error, Gap):
                    raise
                self._logger.warning("waiting", cause=str(error))
                self._pending = {}
                if self._reader is not None:
                    await self._reader.close()
                    self._reader = None
                await asyncio.sleep(PAUSE_SECONDS)

    async def flush(self) -> None:
        """Commit everything gathered."""
        for topic in list(self._pending):
            if self._pending[topic]:
                await self._commit(topic)

    def _open(self) -> dict[Partition, int]:
        starts = {}
        for topic in self._shapes:
            table = self._tables[topic] = Table(self._folder / topic, topic, self._identity)
            for number in range(self._topics.partitions):
                starts[Partition(topic, number)] = table.position(number)
        return starts

    def _gather(self, batch: Batch) -> None:
        shape, topic = self._shapes[batch.partition.topic], batch.partition.topic
        rows = self._pending.setdefault(topic, [])
        for offset, value in zip(batch.offsets, batch.values, strict=True):
            said = shape(value) if value is not None else None
            if said is not None:
                rows.append({"partition": batch.partition.number, "offset": offset} | said)

    async def _commit(self, topic: str) -> None:
        rows, self._pending[topic] = self._pending[topic], []
        names = list(dict.fromkeys(name for row in rows for name in row))
        version = self._tables[topic].append({name: [row.get(name) for row in rows] for name in names})
        positions: dict[int, int] = {}
        for row in rows:
            positions[row["partition"]] = row["offset"] + 1
        said = Commit(table=topic, version=version, positions=positions, rows=len(rows))
        await self._log.send([Send(self._topics.archive, topic.encode(), msgspec.json.encode(said))])

    async def close(self) -> None:
        await self.flush()
        if self._reader is not None:
            await self._reader.close()


def _event_shape(event: Event) -> Callable[[bytes], dict[str, Any] | None]:
    """Typed columns of an event; None for what was dead-lettered (its bytes are there)."""
    decoder = EventDecoder(event)
    names = list(event.columns)

    def shape(value: bytes) -> dict[str, Any] | None:
        try:
            decoded = decoder.decode(value, datetime.now(UTC).timestamp())
        except Refused:
            return None
        return {name: getattr(decoded, name) for name in names}

    return shape


_row = msgspec.json.Decoder(Row).decode
_prediction = msgspec.json.Decoder(Prediction).decode
_outcome = msgspec.json.Decoder(Outcome).decode
_values = msgspec.json.Decoder(dict[str, float | None]).decode


def _row_shape(value: bytes) -> dict[str, Any]:
    row = _row(value)
    cursor, views = msgspec.json.encode(row.cursor).decode(), msgspec.json.encode(row.views).decode()
    return {"id": row.id, "time": row.time, **_values(row.features), "cursor": cursor, "views": views}


def _prediction_shape(value: bytes) -> dict[str, Any]:
    said = _prediction(value)
    head = {
        "id": said.id,
        "key": said.key,
        "time": said.time,
        "score": said.score,
        "version": said.version,
        "variant": said.variant,
    }
    return {**head, "scores": msgspec.json.encode(said.scores).decode(), **_values(said.inputs)}


def _outcome_shape(value: bytes) -> dict[str, Any]:
    said = _outcome(value)
    head = {
        "id": said.id, "key": said.key, "time": said.time, "labelled": said.labelled, "label": said.label,
        "answered": said.answered, "corrects": said.corrects, "score": said.score, "version": said.version,
    }  # fmt: skip
    return {**head, **_values(said.inputs)}
