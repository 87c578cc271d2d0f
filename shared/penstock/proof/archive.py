"""Reading what is archived of a project: its events as the `Past`, its rows as they were `Served`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..errors import PenstockError, Unreachable
from ..event import Column, Event
from ..offline import Tables
from ..place import spelled
from ..topics import Topics
from .history import Past, Recorded, micros_of
from .verify import Served

__all__ = ["past_of", "served_of", "table_of"]

_cursors = msgspec.json.Decoder(list[dict[str, tuple[int, int]]]).decode
_views = msgspec.json.Decoder(dict[str, str]).decode


def table_of(tables: Tables, topic: str, columns: Sequence[str] | None = None) -> Any:
    """An offline table as an Arrow table, with those of `columns` that it has, or all; None when there is none yet. Of a topic
    that was deleted and made again only the records of the newest."""
    if topic not in tables.names():
        return None
    table = tables.table(topic)
    wanted = None if columns is None else [name for name in columns if name in table.schema.names]
    newest = [("topic_id", "=", table.topic_id)] if "topic_id" in table.schema.names else None
    return table.arrow(wanted, newest)


def past_of(topics: Topics, tables: Tables, hop: str | None = None) -> Past:
    """All archived events of the project, or those that pass one hop. Kinds of which nothing is archived are empty."""
    recorded: dict[Event, Recorded] = {}
    passed = _passed(topics, tables)
    for event in topics.project.events:
        if hop is not None and hop not in topics.project.topology.routes[event].path:
            continue
        names = {name: spelled(column) for name, column in event.columns.items()}
        table = table_of(tables, event.topic, ["partition", "offset", *names.values()])
        table = _nothing(event) if table is None else _taken(tables, event, table)
        for name, column in event.columns.items():
            if names[name] in table.column_names:
                continue
            if not column.optional:
                raise PenstockError(
                    f"the table {tables.location.uri(event.topic)} has no column {names[name]}",
                    f"it holds events of another declaration: keep it elsewhere, or give {event!r} another topic",
                )
            table = table.append_column(names[name], _empty(column, len(table)))
        recorded[event] = Recorded(event, table, topics.partitions, passed.get(event.topic))
    return Past(topics.project.topology, recorded, topics.partitions)


def served_of(topics: Topics, tables: Tables, event: Event) -> Served:
    """The archived rows of an event; Unreachable when there are none yet."""
    table = table_of(tables, topics.rows(event))
    if table is None or not len(table):
        raise Unreachable(
            f"no rows of {event.topic} are archived in {tables.location.root}",
            "penstock up   and publish events: what comes is archived within a minute",
        )
    table = table.sort_by([("partition", "ascending"), ("offset", "ascending")])  # so that a seed draws the same rows again
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


def _taken(tables: Tables, event: Event, table: Any) -> Any:
    """Without what the feature store refused, as far as its dead letters are archived: the table has all that decodes."""
    if f"{event.topic}.dlq" not in tables.names():
        return table
    return table.join(tables.refused(event.topic), ["partition", "offset"], ["of_partition", "of_offset"], join_type="left anti")


def _passed(topics: Topics, tables: Tables) -> dict[str, dict[tuple[int, int], int]]:
    """By topic where its partitions had been passed: (partition, offset) -> effective time from there on."""
    table = table_of(tables, topics.passed)
    found: dict[str, dict[tuple[int, int], int]] = {}
    columns = ("event", "of_partition", "of_offset", "before")
    rows = [] if table is None else zip(*(table[name].to_pylist() for name in columns), strict=True)
    for topic, partition, offset, before in rows:
        found.setdefault(topic, {})[partition, offset] = before
    return found


def _nothing(event: Event) -> Any:
    import pyarrow as pa

    empty = {"partition": pa.array([], pa.int64()), "offset": pa.array([], pa.int64())}
    return pa.table(empty | {spelled(column): _empty(column, 0) for column in event.columns.values()})


def _empty(column: Column, length: int) -> Any:
    import pyarrow as pa

    kinds = {"text": pa.string(), "number": pa.float64(), "time": pa.timestamp("us", "UTC")}
    return pa.nulls(length, kinds[column.kind])
