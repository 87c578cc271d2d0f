"""Will the price of electricity be up against its last day? Asked every half hour, answered a day later (1996-98).

The data are not shipped; `data.events(path)` reads a copy of `elec2.csv.gz`. The spot price itself is part of the label's
definition, so the model sees demand and the other state only, and what was known a day before.
"""

from __future__ import annotations

import penstock as ps


@ps.event("demanded")
class Demanded:
    """The market at a half hour."""

    reading_id: ps.Id[str]
    market: ps.Key[str]
    day: float
    period: float
    nswdemand: float
    vicdemand: float
    transfer: float
    read_at: ps.EventTime


@ps.event("priced")
class Priced:
    """Whether the price was up, known a day later."""

    reading_id: ps.Key[ps.Id[str]]
    market: str
    up: bool
    priced_at: ps.EventTime


@ps.features(by=[Demanded.market, Priced.market])
class Market:
    demand_3h = ps.mean(Demanded.nswdemand, over="3h")
    demand_24h = ps.mean(Demanded.nswdemand, over="24h")
    demand_7d = ps.mean(Demanded.nswdemand, over="7d")
    most_24h = ps.max(Demanded.nswdemand, over="24h")
    up_6h = ps.mean(Priced.up, over="6h")
    up_24h = ps.mean(Priced.up, over="24h")
    up_7d = ps.mean(Priced.up, over="7d")
    last_up = ps.last(Priced.up)

    @ps.derived
    def pressure(self, now: Demanded) -> float:
        """Demand against its last day."""
        return now.nswdemand / (self.demand_24h + 0.01)


@ps.model(
    scores=Demanded,
    features=[Demanded.day, Demanded.period, Demanded.nswdemand, Demanded.vicdemand, Demanded.transfer, Market],
    label=ps.label(Priced.up, within="2d"),
    monitors=[ps.drift(Demanded.vicdemand, Demanded.transfer, every="1d"), ps.skill(floor=0.05, over="14d", least=300)],
    retrain=ps.every("14d", on="90d") | ps.on_alarm(at_most_every="7d", on="30d") | ps.incremental("1d"),
    gates=[ps.no_worse(by=0.02, least=40)],
    rollout=[ps.shadow("2d")],
)
def up() -> ps.Learner:
    """How likely the price is to be up."""
    from river import linear_model, preprocessing
    from sklearn.ensemble import HistGradientBoostingClassifier

    return ps.Learner(
        batch=HistGradientBoostingClassifier(
            max_iter=60,
            max_leaf_nodes=15,
            early_stopping=False,  # pyright: ignore[reportArgumentType]  (scikit-learn has no types)
        ),
        online=preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        half_life=500,
    )


project = ps.Project("electricity", [up])
