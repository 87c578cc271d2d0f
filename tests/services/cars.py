"""A project with one model, and the records that its services would write: for tests of what people are shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

import penstock as ps
from penstock.log import Send
from penstock.records import Alarm, Decision, Quality, Shift, Statistic
from penstock.topics import Topics

__all__ = ["CARS", "DAY", "START", "Trip", "alarm", "decision", "shift", "topics", "window"]

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@ps.event("trips")
class Trip:
    trip_id: ps.Id[str]
    car: ps.Key[str]
    distance: float
    load: float
    at: ps.EventTime


@ps.event("ends")
class End:
    trip_id: ps.Key[str]
    late: bool
    at: ps.EventTime


def topics(name: str = "late") -> Topics:
    def build() -> ps.Learner:
        raise AssertionError("nobody fits here")

    build.__name__ = name
    model = ps.model(
        scores=Trip,
        features=[Trip.distance, Trip.load],
        label=ps.label(End.late, within="1h"),
        monitors=[ps.drift(every="1d", material=0.1)],
        retrain=ps.every("7d", first="3d"),
        rollout=[ps.shadow("1d"), ps.canary(0.25, "1d")],
    )(build)
    return Topics(ps.Project("cars", [model]))


CARS = topics()


def quality(n: int, loss: float) -> Quality:
    return Quality(n=n, positives=n // 3, loss=n * loss, squares=0.0)


def window(day: int, n: int = 100, loss: float = 0.5, drift: Mapping[str, Shift] | None = None, **more: float) -> Send:
    said = Statistic(
        id=f"late/{day}", model="late", start=START + day * DAY, end=START + (day + 1) * DAY,
        quality={"served": quality(n, loss), **{v: quality(n, x) for v, x in more.items()}} if n else {},
        paired={}, log_loss={}, auc={"served": 0.7} if n else {}, prior=0.3, prior_loss=0.6 if n else None, skill=0.1,
        drift=dict(drift or {}), counts={}, reference="v1",
    )  # fmt: skip
    return Send(CARS.statistics("late"), b"w", msgspec.json.encode(said))


def shift(ks: float, critical: float = 0.05, floor: float | None = None) -> Shift:
    return Shift(ks=ks, psi=0.0, critical=critical, n=900, floor=floor)


def decision(alias: str, kind: str, version: str, reason: str = "", share: float = 0.0, **evidence: Any) -> Send:
    said = Decision(
        id=f"{kind}/{version}", model="late", kind=kind, version=version, at=START + DAY, actor="registry", reason=reason,
        share=share, expected="v0", evidence=evidence,
    )  # fmt: skip
    return Send(CARS.models, f"late/{alias}".encode(), msgspec.json.encode(said))


def alarm(state: str = "raised", **evidence: Any) -> Send:
    said = Alarm(id=f"late/drift/{state}", model="late", signal="drift", state=state, at=START + 2 * DAY, evidence=evidence)
    return Send(CARS.alarms, b"late", msgspec.json.encode(said))
