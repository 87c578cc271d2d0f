"""The independent check: reads the topics afterwards and says whether everything happened once, and how good the answers were.

It uses no counter of any service. Lost and counted twice are found by position (every event became a row or a dead letter),
by id (one prediction, one outcome), by effect (the counts inside the rows against the events themselves) and by sum (the
statistics against the outcomes). A record that was published again under the same number (see `lane`) is `redelivered`, which
is harmless as every reader drops it; it is reported all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from ..aggregate import EVERY, hop_of
from ..codec import EventDecoder, entity_of
from ..duration import DAY
from ..event import Event, to_micros
from ..log import Headers, Log, Partition
from ..model import Model
from ..records import Alarm, Decision, Outcome, Run, Statistic
from ..runtime.control import Tail
from ..runtime.deadletter import cause_of
from ..runtime.lane import numbered
from ..statistics.kinds import kind_of
from ..statistics.measures import auc, log_loss
from ..topics import Topics
from .losses import losses

__all__ = ["Audit", "audit"]

Floats = npt.NDArray[np.float64]
Scorer = Callable[[Decision, npt.NDArray[np.float32]], Floats]
T = TypeVar("T")


@dataclass
class Audit:
    """What the topics show."""

    events_in: int = 0
    rows: int = 0
    predictions: int = 0
    outcomes: int = 0
    dead_lettered: int = 0
    causes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """How many dead letters, by "topic: reason", and what the first of them says."""
    undeclared: int = 0
    """Label events that are no label of a model (see ps.label): they teach nothing, and nothing is lost."""
    lost: int = 0
    counted_twice: int = 0
    redelivered: int = 0
    auc: dict[str, float | None] = field(default_factory=dict)
    log_loss: dict[str, float | None] = field(default_factory=dict)
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    """By "model, loss" of models whose label is a number or one of several classes: as in `log_loss`."""
    alarms: int = 0
    retrains: int = 0
    retrains_by_alarm: int = 0
    promotions: int = 0
    judged: int = 0
    statistics: int = 0
    unanswered: list[str] = field(default_factory=list)
    """Models of which no version answered anything."""
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
Placed = tuple[int, int, Any]
"""An event with the partition and offset of its record."""


async def read_all(log: Log, topic: str) -> list[Record]:
    """Every record of a topic that is there now."""
    tail, found = Tail(log, [topic]), list[Record]()
    try:
        async for batch in tail.news():
            headers = batch.headers or ((),) * len(batch)
            found += zip([batch.partition] * len(batch), batch.offsets, batch.keys, batch.values, headers, strict=True)
    finally:
        await tail.close()
    return found


async def audit(log: Log, topics: Topics, scorer: Scorer | None = None) -> Audit:
    """Check a finished run. `scorer` scores inputs with the version of a decision: the first one, to be judged unchanged."""
    found, project = Audit(), topics.project
    events: dict[Event, list[Placed]] = {}
    for event in project.events:
        letters = await read_all(log, topics.dead_letters(event.topic))
        dead = {(p.number, int(dict(headers)["dlq.offset"])) for p, _, _, _, headers in letters}
        found.dead_lettered += len(dead)
        for *_, headers in letters:
            cause = cause_of(headers)
            named = f"{event.topic}: {cause['dlq.reason']}"
            count, first = found.causes.get(named, (0, cause["dlq.error"]))
            found.causes[named] = count + 1, first
        found.double(len(letters) - len(dead), f"dead letters of {event.topic}")
        decode = msgspec.json.Decoder(EventDecoder(event).struct).decode
        records = await read_all(log, event.topic)
        found.events_in += len(records)
        events[event] = [(p.number, o, decode(v or b"")) for p, o, _, v, _ in records if (p.number, o) not in dead]

    async def distinct(topic: str, kind: type[T]) -> list[T]:
        return _distinct(found, await read_all(log, topic), kind)

    for event in project.topology.reads:
        rows = await distinct(topics.rows(event), dict[str, Any])
        found.rows += len(rows)
        sources = {tuple(row["cursor"]["source"]) for row in rows}
        lost = {(p, o) for p, o, _ in events[event]} - sources
        found.lose(len(lost), f"{event.topic} events that became neither a row nor a dead letter")
        found.double(len(rows) - len(sources), f"rows of {event.topic}")
        _effects(found, topics, event, events, rows)
    decisions = await distinct(topics.models, Decision) if project.models else []
    for model in project.models:
        asked = {_id(model.scores, e): _time(model.scores, e) for _, _, e in events[model.scores]}
        predictions = await distinct(topics.predictions(model.name), _Id)
        answered = {prediction.id for prediction in predictions}
        found.predictions += len(answered)
        if answered and not any(prediction.version != "none" for prediction in predictions):
            found.unanswered.append(model.name)
        found.double(len(predictions) - len(answered), f"predictions of {model.name}")
        found.lose(len(asked.keys() - answered), f"rows without a prediction of {model.name}")
        outcomes = [o for o in await distinct(topics.outcomes(model.name), Outcome) if o.corrects is None]
        known = {outcome.id: outcome for outcome in outcomes}
        found.outcomes += len(known)
        found.double(len(outcomes) - len(known), f"outcomes of {model.name}")
        label, column = model.label.event, model.label.column.name
        told = [e for _, _, e in events.get(label, ()) if getattr(e, column) is not None]
        valid = [e for e in told if model.label.declares(getattr(e, column))]
        found.undeclared += len(told) - len(valid)
        labelled = {str(getattr(e, label.key.name)): _time(label, e) for e in valid}
        due = {name for name, time in labelled.items() if name in asked and time <= asked[name] + model.label.within}
        found.lose(len(due - known.keys()), f"labels of {model.name} that met their prediction nowhere")
        statistics = await distinct(topics.statistics(model.name), Statistic)
        found.statistics += len(statistics)
        closed = max((to_micros(s.end) for s in statistics), default=0)
        counted = sum(_counted(s) for s in statistics)
        held = model.label.within if model.label.waits else None
        due_there = sum(_counts_from(o, held) < closed for o in known.values())
        found.lose(max(due_there - counted, 0), f"outcomes of {model.name} in no statistic")
        found.double(max(counted - due_there, 0), f"outcomes of {model.name} in statistics")
        mine = {d.id: d for d in decisions if d.model == model.name}.values()
        found.promotions += sum(d.kind == "champion" and bool(d.expected) and not d.evidence.get("rolled_back") for d in mine)
        _judge(found, model, outcomes, list(mine), scorer)
    if project.models:
        found.alarms = len({a.id for a in await distinct(topics.alarms, Alarm) if a.state == "raised"})
        fits = {run.id: run.cause for run in await distinct(topics.runs, Run) if run.kind == "full"}
        found.retrains = len(fits)
        found.retrains_by_alarm = sum(cause.startswith("alarm:") for cause in fits.values())
    return found


def _counted(statistic: Statistic) -> int:
    """The outcomes of a window: of answers that some version gave, of those given before there was one, and (of both kinds) those
    beyond the cap of their source."""
    judged = sum(quality.n for name, quality in statistic.quality.items() if name in ("served", "none"))
    return judged + statistic.counts.get("capped", 0)


def _counts_from(outcome: Outcome, held: int | None) -> int:
    """When an outcome counts: when it is known, or (where labels wait) when its horizon `held` has passed."""
    return to_micros(max(outcome.labelled, outcome.time)) if held is None else to_micros(outcome.time) + held


class _Id(msgspec.Struct):
    id: str
    version: str


def _id(event: Event, e: Any) -> str:
    return str(getattr(e, (event.id or event.key).name))


def _time(event: Event, e: Any) -> int:
    return to_micros(getattr(e, event.time.name))


def _distinct(found: Audit, records: list[Record], kind: type[T]) -> list[T]:
    """The values, each numbered record once."""
    seen, values = set(), []
    for _, _, _, value, headers in records:
        number = numbered(headers)
        if number is not None and number in seen:
            found.redelivered += 1
        elif value is not None:
            seen.add(number)
            values.append(msgspec.json.decode(value, type=kind))
    return values


def _effects(found: Audit, topics: Topics, event: Event, events: dict[Event, list[Placed]], rows: list[dict[str, Any]]) -> None:
    """Every count (without conditions) in every row against the events themselves (for streams in order of time)."""
    rank = topics.project.topology.rank
    placed = [((_time(kind, e), rank[kind], _id(kind, e), p, o), (kind, p, o)) for kind in events for p, o, e in events[kind]]
    order = {source: place for place, (_, source) in enumerate(sorted(placed, key=itemgetter(0)))}
    asked = {(p, o): e for p, o, e in events[event]}
    views = [v for v in topics.project.topology.reads[event] if v.lateness is None and v.ttl is None]
    counts = [(v, f) for v in views for f in v.features if f.kind == "count" and f.parts[0].condition == EVERY]
    for view, feature in counts:
        history: dict[str, list[tuple[int, int]]] = {}
        for p, o, e in events[feature.event]:
            entity = entity_of(view.by[feature.event], e)
            if entity is not None:
                history.setdefault(entity, []).append((order[feature.event, p, o], _time(feature.event, e)))
        arrays = {entity: np.array(sorted(h), np.int64).T.copy() for entity, h in history.items()}
        hop, name = hop_of(feature.over), f"{view.name}.{feature.name}"
        less = more = 0
        for row in rows:
            p, o = row["cursor"]["source"]
            entity = entity_of(view.by[event], asked[p, o])
            expected = 0
            if entity in arrays:
                start = (_time(event, asked[p, o]) - feature.over) // hop * hop
                places, times = arrays[entity]
                expected = int(np.searchsorted(places, order[event, p, o]) - np.searchsorted(times, start))
            less += row["features"][name] < expected
            more += row["features"][name] > expected
        found.lose(less, f"events missing from {name} (rows that show too few)")
        found.double(more, f"events in {name} (rows that show too many)")


def _judge(found: Audit, model: Model, outcomes: list[Outcome], decisions: list[Decision], scorer: Scorer | None) -> None:
    """Area under the curve and log loss (of other labels their loss) of what was served, of the first model unchanged, and of the
    prior: all over the events scored since the first model was in charge."""
    first = next((d for d in sorted(decisions, key=lambda d: d.at) if d.kind == "champion" and d.candidate), None)
    judged = [] if first is None else [o for o in outcomes if o.time >= first.at]
    found.judged += len(judged)
    if first is None or not judged:
        return
    if model.label.task != "binary":
        named = f"{model.name}, {kind_of(model.label).loss}"
        found.losses[named] = losses(model.label, outcomes, judged, first, scorer)
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
    undeclared = f"undeclared {found.undeclared}   " if found.undeclared else ""
    yield f"dead letters {found.dead_lettered:,}   {undeclared}{lost}"
    for named, (count, first) in found.causes.items():
        yield f"  {count:,} of {named}, such as: {first}"
    retrains = f"retrains {found.retrains} ({found.retrains_by_alarm} by alarm)"
    yield f"alarms {found.alarms}   {retrains}   promotions {found.promotions}"
    for name in found.unanswered:
        yield f"no version of {name} ever answered"
    for name in ("served", "first_model", "prior"):
        if found.auc.get(name) is not None:
            yield f"{name.replace('_', ' '):12} area under the curve {found.auc[name]:.4f}   log loss {found.log_loss[name]:.4f}"
    for named, each in found.losses.items():
        said = "   ".join(f"{name.replace('_', ' ')} {loss:.4f}" for name, loss in each.items())
        yield f"{named}: {said}"
