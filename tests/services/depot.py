"""The depot: the parcels of `parcels`, with labels of which each has an event of its own, whose answers are reviewed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from tests.services.parcels import DOORS, START, Depot, Sent

import penstock as ps
from penstock.log import Send
from penstock.records import Flag, Prediction, Review
from penstock.services.embedded import Event
from penstock.topics import Topics


@ps.event("took")
class Took:
    parcel: ps.Key[str]
    hours: float
    at: ps.EventTime


@ps.event("came")
class Came:
    parcel: ps.Key[str]
    door: str
    at: ps.EventTime


FEATURES: list[Any] = [Sent.distance, Sent.weight, Depot]
FAR = {Sent.distance: 45.0, Sent.weight: 5.0}
RETRAIN = ps.every("30d", first="3d")
HOURS, DOOR = ps.label(Took.hours, within="36h"), ps.label(Came.door, within="36h", classes=DOORS)


def regressor() -> ps.Learner:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return ps.Learner(batch=HistGradientBoostingRegressor(max_iter=30, early_stopping=False))


@ps.model(
    scores=Sent, features=FEATURES, label=HOURS, retrain=RETRAIN,
    canaries=[ps.known(FAR, answer=14.5, within=4.0), ps.known({Sent.distance: 5.0}, below=6.0)],
    review=ps.review(sample=1.0, pairs=0.5, within=2.0),
)  # fmt: skip
def hours() -> ps.Learner:
    return regressor()


@ps.model(scores=Sent, features=FEATURES, label=HOURS, retrain=RETRAIN, canaries=[ps.known(FAR, answer=900.0, within=4.0)])
def wrong() -> ps.Learner:
    return regressor()


@ps.model(
    scores=Sent, features=FEATURES, label=DOOR, retrain=RETRAIN,
    canaries=[ps.known(FAR, answer="back", above=0.5)], review=ps.review(sample=1.0, pairs=0.5),
)  # fmt: skip
def door() -> ps.Learner:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return ps.Learner(batch=make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()))


project = ps.Project("depot", [hours, wrong, door])


def apart(events: Sequence[Event]) -> list[Event]:
    """The events of `parcels`, each label by itself."""
    found = list[Event]()
    for topic, key, value, at in events:
        said = msgspec.json.decode(value)
        if topic == "delivered":
            same = {"parcel": said["parcel"], "at": said["at"]}
            found.append(("took", key, msgspec.json.encode({**same, "hours": said["hours"]}), at))
            found.append(("came", key, msgspec.json.encode({**same, "door": said["door"]}), at))
        else:
            found.append((topic, key, value, at))
    return found


def answer(model: str, name: str, score: float, shares: dict[str, float] | None = None, hour: float = 0.0) -> Prediction:
    """Of version v1; `shares`: the probability of each class."""
    many: dict[str, Any] = {}
    if shares:
        many = {"answer": max(shares, key=shares.__getitem__), "probabilities": {"v1": shares}}
    inputs = msgspec.Raw(msgspec.json.encode({"Sent.distance": 20.0, "Sent.weight": 3.0, "Depot.parcels_24h": 7.0}))
    return Prediction(
        id=name, key="d1", model=model, time=START + timedelta(hours=hour), inputs=inputs, score=score, scores={"v1": score},
        weights={"v1": 1.0}, version="v1", variant="champion", digest="abc", bucket=7, latency=0.0, **many,
    )  # fmt: skip


def said(kind: type[Flag] | type[Review], model: str, name: str, by: str, word: float | str) -> Any:
    """As somebody says it, an hour after."""
    return kind(prediction=name, model=model, by=by, at=START + timedelta(hours=1), says=False, truth=word)


def sent(topics: Topics, each: Prediction | Flag | Review) -> Send:
    """As whoever writes it does."""
    if isinstance(each, Prediction):
        return Send(topics.predictions(each.model), each.id.encode(), msgspec.json.encode(each))
    topic = topics.flags if isinstance(each, Flag) else topics.reviews
    return Send(topic, each.prediction.encode(), msgspec.json.encode(each))
