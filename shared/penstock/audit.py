"""The independent check: reads the topics afterwards and says whether everything happened once, and how good the answers were.

It uses no counter of any service. Lost and counted twice are found by position (every event became a row or a dead letter),
by id (one prediction, one outcome), by effect (the counts inside the rows against the events themselves) and by sum (the
statistics against the outcomes). A record that was published again under the same number (see `lane`) is `redelivered`, which
is harmless as every reader drops it; it is reported all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from .codec import EventDecoder, entity_of
from .event import Event, to_micros
from .feature import hop_of
from .lane import FROM, SEQUENCE
from .log import Headers, Log, Partition
from .quality import auc, log_loss
from .records import Decision, Outcome, Statistic
from .topics import Topics

__all__ = ["Audit", "audit"]

Floats = npt.NDArray[np.float64]
Scorer = Callable[[Decision, npt.NDArray[np.float32]], Floats]
DAY = 86_400_000_000


@dataclass
class Audit:
    """What the topics show."""

    events_in: int = 0
    rows: int = 0
    predictions: int = 0
    outcomes: int = 0
    dead_lettered: int = 0
    lost: int = 0
    counted_twice: int = 0
    redelivered: int = 0
    auc: dict[str, float | None] = field(default_factory=dict)
    log_loss: dict[str, float | None] = field(default_factory=dict)
    alarms: int = 0
    retrains: int = 0
    retrains_by_alarm: int = 0
    promotions: int = 0
    judged: int = 0
    statistics: int = 0
    complaints: list[str] = field(default_factory=list)
    """What is wrong, in words; empty when every part of the loop really happened."""

    def lose(self, n: int, what: str) -> None:
        if n:
            self.lost += n
            self.complaints.append(f"lost: {n} {what}")

    def double(self, n: int, what: str) -> None:
        if n:
            self.counted_twice += n
            self.complaints.append(f"counted twice: {n} {what}")


Record = tuple[Partition, int, bytes | None, bytes | None, Headers]


async def read_all(log: Log, topic: str) -> list[Record]:
    """Every record of a topic that is there now."""
    ends = await log.ends([topic])
    begins = await log.begins([topic])
    left = {p: end for p, end in ends.items() if end > begins[p]}
    found: list[Record] = []
    if not left:
        return found
    reader = await log.reader({p: begins[p] for p in left})
    try:
        while left:
            for batch in await reader.read(20_000, 5.0):
                headers = batch.headers or ((),) * len(batch)
                found += zip([batch.partition] * len(batch), batch.offsets, batch.keys, batch.values, headers, strict=True)
                if batch.next >= left.get(batch.partition, 0):
                    left.pop(batch.partition, None)
    finally:
        await reader.close()
    return found


async def audit(log: Log, topics: Topics, scorer: Scorer | None = None) -> Audit:
    """Check a finished run. `scorer` scores inputs with the version of a decision: the first one, to be judged unchanged."""
    found = Audit()
    project, topology = topics.project, topics.project.topology
    dead = {}
    present = set(await log.describe())
    for event in project.events:
        letters = await read_all(log, topics.dead_letters(event.topic))
        dead[event] = {(p.number, int(dict(h)["dlq.offset"])) for p, _, _, _, h in letters}
        found.dead_lettered += len(dead[event])
        found.double(len(letters) - len(dead[event]), f"dead letters of {event.topic}")
    events: dict[Event, list[tuple[int, int, Any]]] = {}
    for event in project.events:
        decode = msgspec.json.Decoder(EventDecoder(event).struct).decode
        records = await read_all(log, event.topic)
        found.events_in += len(records)
        events[event] = [(p.number, o, decode(v or b"")) for p, o, _, v, _ in records if (p.number, o) not in dead[event]]
    order = _canonical(topology.rank, events)
    for event in topology.reads:
        rows = _distinct(found, await read_all(log, topics.rows(event)))
        found.rows += len(rows)
        decoded = [msgspec.json.decode(v) for v in rows]
        sources = Counter(tuple(r["cursor"]["source"]) for r in decoded)
        wanted = {(p, o) for p, o, _ in events[event]}
        found.lose(len(wanted - set(sources)), f"{event.topic} events that became neither a row nor a dead letter")
        found.double(sum(sources.values()) - len(set(sources)), f"rows of {event.topic}")
        _effects(found, topics, event, events, order, decoded)
    for model in project.models:
        values = _distinct(found, await read_all(log, topics.predictions(model.name)))
        ids = Counter(msgspec.json.decode(v, type=_Id).id for v in values)
        found.predictions += len(ids)
        found.double(sum(ids.values()) - len(ids), f"predictions of {model.name}")
        asked = {str(getattr(e, (model.scores.id or model.scores.key).name)) for _, _, e in events[model.scores]}
        found.lose(len(asked - set(ids)), f"rows without a prediction of {model.name}")
        outcomes = [
            msgspec.json.decode(v, type=Outcome) for v in _distinct(found, await read_all(log, topics.outcomes(model.name)))
        ]
        first = [o for o in outcomes if o.corrects is None]
        answered = Counter(o.id for o in first)
        found.outcomes += len(answered)
        found.double(len(first) - len(answered), f"outcomes of {model.name}")
        label = model.label.event
        labelled = {str(getattr(e, label.key.name)): to_micros(getattr(e, label.time.name)) for _, _, e in events.get(label, ())}
        when = {
            str(getattr(e, (model.scores.id or model.scores.key).name)): to_micros(getattr(e, model.scores.time.name))
            for _, _, e in events[model.scores]
        }
        due = {i for i, t in labelled.items() if i in when and t <= when[i] + model.label.within}
        found.lose(len(due - set(answered)), f"labels of {model.name} that met their prediction nowhere")
        statistics = [
            msgspec.json.decode(v, type=Statistic) for v in _distinct(found, await read_all(log, topics.statistics(model.name)))
        ]
        found.statistics += len(statistics)
        closed = max((to_micros(s.end) for s in statistics), default=0)
        counted = sum(s.quality["served"].n for s in statistics if "served" in s.quality)
        known = sum(1 for o in first if to_micros(max(o.labelled, o.time)) < closed and o.version != "none")
        found.lose(max(known - counted, 0), f"outcomes of {model.name} in no statistic")
        found.double(max(counted - known, 0), f"outcomes of {model.name} in statistics")
        decisions = [msgspec.json.decode(v, type=Decision) for _, _, _, v, _ in await read_all(log, topics.models) if v]
        mine = {d.id: d for d in decisions if d.model == model.name}.values()
        found.promotions += sum(d.kind == "champion" and bool(d.expected) and not d.evidence.get("rolled_back") for d in mine)
        _judge(found, model.name, first, list(mine), scorer)
    if topics.alarms in present and project.models:
        alarms = [msgspec.json.decode(v) for _, _, _, v, _ in await read_all(log, topics.alarms) if v]
        found.alarms = len({a["id"] for a in alarms if a["state"] == "raised"})
        runs = {r["id"]: r for r in (msgspec.json.decode(v) for _, _, _, v, _ in await read_all(log, topics.runs) if v)}
        found.retrains = sum(r["kind"] == "full" for r in runs.values())
        found.retrains_by_alarm = sum(r["kind"] == "full" and r["cause"].startswith("alarm:") for r in runs.values())
    return found


class _Id(msgspec.Struct):
    id: str


def _distinct(found: Audit, records: list[Record]) -> list[bytes]:
    """The values, each numbered record once."""
    seen, values = set(), []
    for _, _, _, value, headers in records:
        if value is None:
            continue
        number = tuple(v for n, v in headers if n in (FROM, SEQUENCE))
        if number and number in seen:
            found.redelivered += 1
            continue
        seen.add(number)
        values.append(value)
    return values


def _canonical(rank: dict[Event, int], events: dict[Event, list[tuple[int, int, Any]]]) -> dict[tuple[Event, int, int], int]:
    """Each event's place in stream time: (time, kind, id)."""
    keyed = []
    for event, found in events.items():
        name, time = (event.id or event.key).name, event.time.name
        keyed += [(to_micros(getattr(e, time)), rank[event], str(getattr(e, name)), event, p, o) for p, o, e in found]
    keyed.sort(key=lambda k: (k[0], k[1], k[2], k[4], k[5]))
    return {(event, p, o): place for place, (_, _, _, event, p, o) in enumerate(keyed)}


def _effects(
    found: Audit,
    topics: Topics,
    event: Event,
    events: dict[Event, Any],
    order: dict[Any, int],
    rows: list[dict[str, Any]],
) -> None:
    """Every count in every row against the events themselves (for streams in order of time)."""
    topology = topics.project.topology
    source = {(p, o): e for p, o, e in events[event]}
    for view in topology.reads[event]:
        for feature in view.features:
            if feature.kind != "count":
                continue
            history: dict[str, list[tuple[int, int]]] = {}
            columns = view.by[feature.event]
            for p, o, e in events[feature.event]:
                entity = entity_of(columns, e)
                if entity is not None:
                    history.setdefault(entity, []).append(
                        (order[feature.event, p, o], to_micros(getattr(e, feature.event.time.name)))
                    )
            arrays = {entity: np.array(sorted(h), np.int64) for entity, h in history.items()}
            hop, name = hop_of(feature.over), f"{view.name}.{feature.name}"
            less = more = 0
            for row in rows:
                p, o = row["cursor"]["source"]
                e = source[p, o]
                entity = entity_of(view.by[event], e)
                own = arrays.get(entity) if entity is not None else None
                expected = 0
                if own is not None:
                    start = (to_micros(getattr(e, event.time.name)) - feature.over) // hop * hop
                    expected = int(np.searchsorted(own[:, 0], order[event, p, o]) - np.searchsorted(own[:, 1], start))
                less += row["features"][name] < expected
                more += row["features"][name] > expected
            found.lose(less, f"events missing from {name} (rows that show too few)")
            found.double(more, f"events in {name} (rows that show too many)")


def _judge(found: Audit, model: str, outcomes: list[Outcome], decisions: list[Decision], scorer: Scorer | None) -> None:
    """Area under the curve and log loss of what was served, of the first model unchanged, and of the prior: all over the
    events scored since the first model was in charge."""
    first = next((d for d in sorted(decisions, key=lambda d: d.at) if d.kind == "champion" and d.candidate), None)
    judged = [] if first is None else [o for o in outcomes if o.time >= first.at]
    found.judged += len(judged)
    if first is None or not judged:
        return
    label = np.array([o.label for o in judged])
    scores = {"served": np.array([o.score for o in judged]), "prior": prior(outcomes, judged)}
    if scorer is not None:
        inputs = np.array(
            [[np.nan if v is None else v for v in msgspec.json.decode(o.inputs).values()] for o in judged], np.float32
        )
        scores["first_model"] = scorer(first, inputs)
    for name, values in scores.items():
        found.auc[name] = auc(label, values)
        found.log_loss[name] = log_loss(label, values)


def prior(outcomes: list[Outcome], judged: list[Outcome]) -> Floats:
    """For each judged event the label rate of the seven days before it, as far as labels were known then."""
    known = np.array(sorted((to_micros(o.labelled), o.label) for o in outcomes), np.int64)
    total = np.concatenate([[0], np.cumsum(known[:, 1])])
    when = np.array([to_micros(o.time) for o in judged])
    high = np.searchsorted(known[:, 0], when)
    low = np.searchsorted(known[:, 0], when - 7 * DAY)
    rate: Floats = (total[high] - total[low] + 0.5) / (high - low + 1.0)
    return rate


def lines(found: Audit) -> Iterator[str]:
    """The summary as people read it."""
    yield f"events {found.events_in:,}   rows {found.rows:,}   predictions {found.predictions:,}   outcomes {found.outcomes:,}"
    lost = f"lost {found.lost}   counted twice {found.counted_twice}   redelivered {found.redelivered}"
    yield f"dead letters {found.dead_lettered:,}   {lost}"
    retrains = f"retrains {found.retrains} ({found.retrains_by_alarm} by alarm)"
    yield f"alarms {found.alarms}   {retrains}   promotions {found.promotions}"
    for name in ("served", "first_model", "prior"):
        if found.auc.get(name) is not None:
            yield f"{name.replace('_', ' '):12} area under the curve {found.auc[name]:.4f}   log loss {found.log_loss[name]:.4f}"
