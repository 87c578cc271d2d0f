"""Will this flight arrive more than 15 minutes late? Asked an hour before it leaves, answered hours later, all of 2013."""

from __future__ import annotations

import penstock as ps


@ps.event("scheduled")
class Scheduled:
    """A flight leaves New York in 60 minutes, says the plan."""

    flight_id: ps.Id[str]
    origin: ps.Key[str]
    dest: str
    carrier: str
    aircraft: str | None
    distance: float
    hour: float
    weekday: float
    scheduled_at: ps.EventTime


@ps.event("departed")
class Departed:
    flight_id: ps.Id[str]
    origin: ps.Key[str]
    delay: float
    late: bool
    departed_at: ps.EventTime


@ps.event("arrived")
class Arrived:
    """The truth, keyed by the flight that it answers."""

    flight_id: ps.Key[ps.Id[str]]
    origin: str
    dest: str
    carrier: str
    aircraft: str | None
    delay: float
    late: bool
    arrived_at: ps.EventTime


@ps.event("weather")
class Weather:
    origin: ps.Key[str]
    temp: float | None
    humid: float | None
    wind_speed: float | None
    precip: float | None
    pressure: float | None
    visib: float | None
    observed_at: ps.EventTime


@ps.features(by=[Scheduled.origin, Departed.origin, Weather.origin])
class Origin:
    """The airport that the flight leaves: its queue, its delays, its weather."""

    planned_1h = ps.count(Scheduled, over="1h")
    planned_4h = ps.count(Scheduled, over="4h")
    departures_1h = ps.count(Departed, over="1h")
    departures_3h = ps.count(Departed, over="3h")
    departures_24h = ps.count(Departed, over="24h")
    delay_1h = ps.mean(Departed.delay, over="1h")
    delay_3h = ps.mean(Departed.delay, over="3h")
    delay_24h = ps.mean(Departed.delay, over="24h")
    late_1h = ps.mean(Departed.late, over="1h")
    late_3h = ps.mean(Departed.late, over="3h")
    late_24h = ps.mean(Departed.late, over="24h")
    temp = ps.last(Weather.temp)
    humid = ps.last(Weather.humid)
    wind = ps.last(Weather.wind_speed)
    precip = ps.last(Weather.precip)
    pressure = ps.last(Weather.pressure)
    visib = ps.last(Weather.visib)

    @ps.derived
    def waiting(self) -> float:
        """Due to leave in the last 3 hours (announced 1 to 4 hours ago) less those that left: who waits is in no window of
        departures, which hold only those that got away."""
        return self.planned_4h - self.planned_1h - self.departures_3h


@ps.features(by=[Scheduled.carrier, Arrived.carrier])
class Carrier:
    arrivals_24h = ps.count(Arrived, over="24h")
    delay_24h = ps.mean(Arrived.delay, over="24h")
    late_24h = ps.mean(Arrived.late, over="24h")


@ps.features(by=[Scheduled.dest, Arrived.dest])
class Destination:
    delay_6h = ps.mean(Arrived.delay, over="6h")
    late_6h = ps.mean(Arrived.late, over="6h")
    delay_24h = ps.mean(Arrived.delay, over="24h")
    late_24h = ps.mean(Arrived.late, over="24h")


@ps.features(by=[Scheduled.aircraft, Arrived.aircraft])
class Aircraft:
    """The machine: how late its last flight was, and when that was."""

    last_delay = ps.last(Arrived.delay)
    idle = ps.since_last(Arrived)


@ps.features(by=[(Scheduled.origin, Scheduled.dest), (Arrived.origin, Arrived.dest)])
class Path:
    delay_7d = ps.mean(Arrived.delay, over="7d")
    late_7d = ps.mean(Arrived.late, over="7d")


@ps.model(
    scores=Scheduled,
    features=[Scheduled.distance, Scheduled.hour, Scheduled.weekday, Origin, Carrier, Destination, Aircraft, Path],
    label=ps.label(Arrived.late, within="48h"),
    segments=[Scheduled.origin],
    monitors=[
        ps.drift(Origin, Carrier, every="1d", false_alarms_per_month=1.0),
        ps.skill(floor=0.02, over="7d", every="1d"),
    ],
    retrain=ps.every("28d", first="14d") | ps.on_alarm(at_most_every="28d") | ps.incremental("6h"),
    gates=[ps.no_worse(by=0.005)],
    rollout=[ps.shadow("1d"), ps.canary(0.25, "1d")],
    keep_first=True,
)
def late() -> ps.Learner:
    """How likely a flight is to arrive more than 15 minutes late."""
    from river import linear_model, optim, preprocessing
    from sklearn.ensemble import HistGradientBoostingClassifier

    return ps.Learner(
        batch=HistGradientBoostingClassifier(
            max_iter=150,
            learning_rate=0.06,
            max_leaf_nodes=15,
            min_samples_leaf=200,
            l2_regularization=10.0,
            early_stopping=False,  # pyright: ignore[reportArgumentType]  (scikit-learn has no types)
        ),
        online=preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.001)),
        sharpness=100.0,
        half_life=5_000,
    )


project = ps.Project("flights", [late])
