"""How many minutes late will this flight arrive, and how many at worst in nine of ten? The flights of `flights`, labels that are
numbers: the same events and features, one model of the mean and one of a quantile. Both are watched for airports that they serve
worse: by errors that are half as great again, and by a quantile that covers a tenth fewer."""

from __future__ import annotations

from typing import Any

import penstock as ps

from .flights import Aircraft, Arrived, Carrier, Destination, Origin, Path, Scheduled

FEATURES = [Scheduled.distance, Scheduled.hour, Scheduled.weekday, Origin, Carrier, Destination, Aircraft, Path]
TREES: dict[str, Any] = {"max_iter": 100, "learning_rate": 0.06, "max_leaf_nodes": 15, "min_samples_leaf": 200}


@ps.model(
    scores=Scheduled,
    features=FEATURES,
    label=ps.label(Arrived.delay, within="48h"),
    monitors=[ps.skill(floor=0.0, over="7d", every="1d"), ps.fairness(Scheduled.origin, gap=0.5, measures=["mae"])],
    retrain=ps.every("14d"),
    gates=[ps.no_worse(by=20.0)],  # squared minutes
    rollout=[ps.shadow("1d"), ps.canary(0.25, "1d")],
    keep_first=True,
)
def delay() -> ps.Learner:
    """Minutes between the planned and the real arrival; below 0 where it is early."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return ps.Learner(batch=HistGradientBoostingRegressor(early_stopping=False, **TREES))


@ps.model(
    scores=Scheduled,
    features=FEATURES,
    label=ps.label(Arrived.delay, within="48h", quantile=0.9),
    monitors=[ps.skill(floor=0.0, over="7d", every="1d"), ps.fairness(Scheduled.origin, gap=0.1, measures=["coverage"])],
    retrain=ps.every("14d"),
    gates=[ps.no_worse(by=0.2), ps.covers(within=0.05)],  # minutes, those above the answer weighing nine times as much
    rollout=[ps.shadow("1d"), ps.canary(0.25, "1d")],
    keep_first=True,
)
def at_worst() -> ps.Learner:
    """Minutes late that nine of ten such flights stay below."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return ps.Learner(batch=HistGradientBoostingRegressor(loss="quantile", quantile=0.9, early_stopping=False, **TREES))


project = ps.Project("delays", [delay, at_worst])
