"""Reading what is archived of a project: its events as the `Past`, its rows as they were `Served`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .errors import PenstockError, Unreachable
from .event import Event
from .past import Past, Recorded, micros_of
from .topics import Topics
from .verify import Served

__all__ = ["past_of", "served_of", "table_of"]

_cursors = msgspec.json.Decoder(list[dict[str, tuple[int, int]]]).decode
_views = msgspec.json.Decoder(dict[str, str]).decode


def table_of(folder: Path, topic: str, columns: Sequence[str] | None = None) -> Any:
    """An offline table as an Arrow table, with these columns or all; None when there is none yet."""
    from deltalake import DeltaTable

    if not DeltaTable.is_deltatable(str(folder / topic)):
        return None
    table = DeltaTable(str(folder / topic))
    there = {field.name for field in table.schema().fields}
    return table.to_pyarrow_table(columns=None if columns is None else [name for name in columns if name in there])


def past_of(topics: Topics, folder: Path, hop: str | None = None) -> Past:
    """All archived events of the project, or those that pass one hop. Kinds of which nothing is archived are empty."""
    recorded: dict[Event, Recorded] = {}
    for event in topics.project.events:
        if hop is not None and hop not in topics.project.topology.routes[event].path:
            continue
        wanted = ["partition", "offset", *event.columns]
        table = table_of(folder, event.topic, wanted)
        if table is None:
            table = _nothing(event)
        for name in sorted(set(wanted) - set(table.column_names)):
            if name in event.columns and event.columns[name].optional:
                table = table.append_column(name, _empty(event, name, len(table)))
                continue
            raise PenstockError(
                f"the table {folder / event.topic} has no column {name}",
                f"it holds events of another declaration: keep it elsewhere, or give {event!r} another topic",
            )
        recorded[event] = Recorded(event, table, topics.partitions)
    return Past(topics.project.topology, recorded, topics.partitions)


def served_of(topics: Topics, folder: Path, event: Event) -> Served:
    """The archived rows of an event; Unreachable when there are none yet."""
    table = table_of(folder, topics.rows(event))
    if table is None or not len(table):
        raise Unreachable(
            f"no rows of {event.topic} are archived in {folder}",
            "penstock up   and publish events: what comes is archived within a minute",
        )
    texts = table["cursor"].to_pylist()
    cursors = _cursors(f"[{','.join(texts)}]")
    hops = [hop.key for hop in topics.project.topology.hops]
    read = {
        hop: np.array([cursor.get(hop, (-1, -1)) for cursor in cursors], np.int64) for hop in hops if hop in set().union(*cursors)
    }
    known: dict[str | None, Mapping[str, str]] = {None: {}}
    made = table["views"].to_pylist() if "views" in table.column_names else [None] * len(table)
    for text in set(made) - {None}:
        known[text] = _views(text)
    columns = {
        name: table[name].cast("float64").to_numpy()
        for name in table.column_names
        if "." in name
    }  # fmt: skip
    return Served(
        event, table["id"].to_pylist(), micros_of(table["time"]), np.array([cursor["source"] for cursor in cursors], np.int64),
        read, columns, [known[text] for text in made],
    )  # fmt: skip


def _nothing(event: Event) -> Any:
    import pyarrow as pa

    empty = {"partition": pa.array([], pa.int64()), "offset": pa.array([], pa.int64())}
    return pa.table(empty | {name: _empty(event, name, 0) for name in event.columns})


def _empty(event: Event, name: str, length: int) -> Any:
    import pyarrow as pa

    kinds = {"text": pa.string(), "number": pa.float64(), "time": pa.timestamp("us", "UTC")}
    return pa.nulls(length, kinds[event.columns[name].kind])
