"""Rides that end late or not: the model, and the records around it, that tests of the control services share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import penstock as ps
from penstock.model import Model
from penstock.records import Alarm, Artefact, Candidate, Command, Paired, Statistic
from penstock.topics import Topics

START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@ps.event("rides")
class Ride:
    ride_id: ps.Id[str]
    car: ps.Key[str]
    distance: float
    load: float
    at: ps.EventTime


@ps.event("ends")
class End:
    ride_id: ps.Key[str]
    late: bool
    at: ps.EventTime


def nothing() -> ps.Learner:
    raise AssertionError("only the trainer builds a learner")


def a_model(build: Callable[[], ps.Learner] = nothing, within: str = "1d", **policy: Any) -> Model:
    """The model `late`, with a policy as `ps.model` takes it."""
    label = ps.label(End.late, within=within)
    declare: Callable[..., Any] = ps.model(scores=Ride, features=[Ride.distance, Ride.load], label=label, **policy)

    def late() -> ps.Learner:
        return build()

    made: Model = declare(late)
    return made


def topics(model: Model, partitions: int = 1) -> Topics:
    return Topics(ps.Project("rides-late", [model]), partitions)


def candidate(version: str, day: float = 0.0, kind: str = "full", **metrics: float) -> Candidate:
    return Candidate(
        id=f"c-{version}", model="late", version=version, kind=kind, at=START + day * DAY,
        artefact=Artefact(uri="x", sha256="0" * 64, size=1, format="onnx"), inputs=["Ride.distance", "Ride.load"],
        weights={"batch": 0.4, "online": 0.6}, edges={"Ride.distance": [1.0]}, reference={"Ride.distance": [1, 2, 0]},
        metrics=metrics, run=f"r-{version}", fingerprint="f",
    )  # fmt: skip


def window(day: int, n: int = 1_000, spread: float = 0.1, **mean: float) -> Statistic:
    """The window that ends on a day; versions with their mean log loss, whose differences spread so much event by event."""
    paired: dict[str, dict[str, Paired]] = {}
    for one, other in combinations(sorted(mean), 2):
        gap = mean[one] - mean[other]
        paired.setdefault(one, {})[other] = Paired(n=n, sum=n * gap, squares=n * (gap * gap + spread * spread))
    return Statistic(
        id=f"s-{day}", model="late", start=START + (day - 1) * DAY, end=START + day * DAY, quality={}, paired=paired,
        log_loss={}, auc={}, prior=None, prior_loss=None, skill=None, drift={}, counts={}, reference="",
    )  # fmt: skip


def alarm(day: int, state: str = "raised", signal: str = "drift") -> Alarm:
    return Alarm(id=f"a-{signal}-{day}", model="late", signal=signal, state=state, at=START + day * DAY, evidence={})


def command(action: str, expected: str = "", version: str = "", name: str = "", day: float = 1.0) -> Command:
    said = name or f"{action}-{version}-{expected}-{day}"
    return Command(id=said, model="late", action=action, at=START + day * DAY, actor="ada", version=version, expected=expected)
