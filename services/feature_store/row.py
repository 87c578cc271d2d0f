"""The wire form of finished rows."""

from __future__ import annotations

from itertools import starmap
from typing import Any, cast

import msgspec
import numpy as np

from penstock.codec import entities_of
from penstock.event import Event, from_micros
from penstock.log import Headers, Send
from penstock.runtime.merge import Column
from penstock.topics import Topics

from .block import Rows

__all__ = ["CLOUD_EVENT", "RowWriter"]

CLOUD_EVENT: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_type", b"penstock.row.v1"),
    ("content-type", b"application/json"),
)
"""The lane adds source and id."""

_encode = msgspec.json.Encoder().encode


class RowWriter:
    """The wire form of the rows of one event (`records.Row`), put together from parts that are encoded already."""

    def __init__(self, event: Event, topics: Topics) -> None:
        topology = topics.project.topology
        columns = topology.columns(event)
        fields = [(f"v{i}", float) for i in range(len(columns))]
        self._values: Any = msgspec.defstruct("Values", fields, rename={f"v{i}": n for i, n in enumerate(columns)}, gc=False)
        self._width, self.topic, self._key, self._time = len(columns), topics.rows(event), event.key, event.time.name
        read = [i for i, hop in enumerate(topology.hops) if any(view in topology.reads[event] for view in hop.views)]
        self._places = [0, 1, *(at for i in read for at in (2 + 2 * i, 3 + 2 * i))]
        names = [b'"%b":[%%d,%%d]' % name.encode() for name in ("source", *(topology.hops[i].key for i in read))]
        made = _encode({view.name: view.fingerprint for view in topology.reads[event]}).replace(b"%", b"%%")
        self._form = b'{"id":%b,"time":%b,"event":%b,"features":{%b},"cursor":{' + b",".join(names) + b'},"views":' + made + b"}"

    def write(self, ids: Column, rows: Rows) -> list[Send]:
        """The records of finished rows, in the partitions that their events came from."""
        events, topic, form = rows.events.tolist(), self.topic, self._form
        # encoded in one call each, and cut where neither a time nor an object of numbers has such bytes inside
        times = _encode([getattr(event, self._time) for event in events])[1:-1].split(b",")
        values = _encode(list(starmap(self._values, rows.features[:, : self._width].tolist())))[2:-2].split(b"},{")
        keys = cast(list[str], entities_of((self._key,), events))
        cursors = rows.cursors[:, self._places].tolist()
        sends = []
        for name, time, raw, line, cursor, key in zip(
            ids.tolist(), times, rows.raws.tolist(), values, cursors, keys, strict=True
        ):
            value = form % (_encode(name), time, raw, line, *cursor)
            sends.append(Send(topic, key.encode(), value, CLOUD_EVENT, cursor[0]))
        for i in np.flatnonzero(rows.cursors[:, -1] == 1).tolist():
            sends[i] = sends[i]._replace(value=(sends[i].value or b"")[:-1] + b',"late":true}')
        for i in np.flatnonzero(rows.cursors[:, -2] > 0).tolist():
            as_of = _encode(from_micros(int(rows.cursors[i, -2])))
            sends[i] = sends[i]._replace(value=(sends[i].value or b"")[:-1] + b',"as_of":%b}' % as_of)
        for i in np.flatnonzero(rows.traces).tolist():
            sends[i] = sends[i]._replace(headers=(*sends[i].headers, ("traceparent", rows.traces[i].encode())))
        return sends
