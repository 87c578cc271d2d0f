"""Reading what is recorded of a model: from its topics, and of its single answers from the offline tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ..event import to_micros
from ..quarantine import automatic, known
from ..records import Alarm, Cohort, Decision, Partial, Quarantine, Reviewed, Run, Statistic
from .examples import MOST
from .records import NOBODY, Answered, Found, Wrong, period_of

if TYPE_CHECKING:
    from ..model import Model
    from ..offline import Tables
    from ..topics import Topics

__all__ = ["answered_of", "found_of"]

T = TypeVar("T")
QUANTILES: Final = ("0.5", "0.95", "0.99")
"""Of latency."""
FEW: Final = 1_000
"""Candidates for the most wrong answers that are looked at one by one, as some repeat others."""


class _Head(msgspec.Struct):
    """What says whether a report needs a partial, which are large."""

    model: str
    start: int
    end: int


async def found_of(
    topics: Topics,
    model: str,
    held: Callable[[str], AsyncIterator[bytes]],
    start: datetime | None = None,
    until: datetime | None = None,
    known_at: datetime | None = None,
) -> Found:
    """What the topics hold that a report of the period needs; `held(topic)` gives every value of one."""

    async def all_of(topic: str, kind: type[T]) -> list[T]:
        decode = msgspec.json.Decoder(kind).decode
        return [decode(value) async for value in held(topic)]

    found = Found(
        statistics=await all_of(topics.statistics(model), Statistic),
        cohorts=await all_of(topics.cohorts(model), Cohort),
        alarms=await all_of(topics.alarms, Alarm),
        runs=await all_of(topics.runs, Run),
        decisions=await all_of(topics.models, Decision),
        reviewed=await all_of(topics.reviewed, Reviewed) if topics.project.model(model).review else [],
    )
    said = await all_of(topics.quarantines, Quarantine)
    found.quarantines = known(said, automatic(topics.project.model(model), found.alarms))
    first, last = map(to_micros, period_of(model, found.statistics, start, until, known_at))
    head, whole = msgspec.json.Decoder(_Head).decode, msgspec.json.Decoder(Partial).decode
    async for value in held(topics.partials):
        of = head(value)
        if of.model == model and first <= of.start and of.end <= last:
            found.partials.append(whole(value))
    return found


def answered_of(
    tables: Tables, topics: Topics, model: Model, start: datetime, until: datetime, known_at: datetime | None
) -> Answered | None:
    """What archived answers to events of a period say, as far as it was known; None where none are archived."""
    import pyarrow.compute as pc

    there = tables.names()
    if topics.outcomes(model.name) not in there:
        return None
    inside = (pc.field("time") >= start) & (pc.field("time") < until)
    known = inside if known_at is None else inside & (pc.field("labelled") <= known_at)
    table = tables.table(topics.outcomes(model.name))
    names = table.schema.names
    if (truth := model.label.kept) not in names:  # all are of before the label was declared so
        return None
    own = ["offset", "id", "key", "time", "labelled", truth, "score", "version", *(["answer"] if "answer" in names else [])]
    inputs = [name for name in model.inputs if name in names]
    rows = table.arrow([*own, *inputs], known & (pc.field("version") != NOBODY) & pc.field(truth).is_valid())
    predictions, latency = 0, dict[str, float]()
    if topics.predictions(model.name) in there:
        seconds = tables.table(topics.predictions(model.name)).arrow(["latency"], inside)["latency"]
        predictions = len(seconds)
        found = pc.quantile(seconds, [float(q) for q in QUANTILES]).to_pylist() if len(seconds) else []
        latency = {q: s for q, s in zip(QUANTILES, found, strict=False) if s} if any(found) else {}
    return Answered(len(rows), _worst(rows, inputs, truth), latency, predictions)


def _worst(rows: Any, inputs: list[str], truth: str) -> list[Wrong]:
    """The furthest from their label; of an answer whose label was corrected, by the newest. Of classes the surest that were
    wrong."""
    import pyarrow as pa
    import pyarrow.compute as pc

    last = rows.group_by("id").aggregate([("labelled", "max")]).rename_columns(["id", "labelled"])
    rows = rows.join(last, ["id", "labelled"], join_type="inner")
    if pa.types.is_string(rows.schema.field(truth).type):
        right = pc.equal(rows["answer"], rows[truth])
        off = pc.if_else(right, pc.subtract(0.0, rows["score"]), rows["score"])
    else:
        off = pc.abs(pc.subtract(pc.cast(rows[truth], "float64"), rows["score"]))
    rows = rows.append_column("off", off).filter(pc.is_finite(off))
    order = [("off", "descending"), ("time", "ascending"), ("id", "ascending"), ("offset", "descending")]
    found: dict[str, Wrong] = {}
    for row in rows.take(pc.select_k_unstable(rows, FEW, order[:3])).sort_by(order).to_pylist():
        if len(found) == MOST:
            break
        label = row[truth] if isinstance(row[truth], str) else float(row[truth])
        given = {name: row[name] for name in inputs}
        wrong = Wrong(row["id"], row["key"], row["time"], row["version"], row["score"], label, given, row.get("answer") or "")
        found.setdefault(row["id"], wrong)
    return list(found.values())
