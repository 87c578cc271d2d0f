"""Real streams as projects that watch their inputs: what the harness replays."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

import penstock as ps
from penstock.duration import DAY, HOUR, MINUTE
from penstock.event import from_micros
from penstock.examples.flights import Arrived, Carrier, Origin, Scheduled
from penstock.services.embedded import Event

DATA = Path(os.environ.get("PENSTOCK_STREAMS", Path(__file__).parents[2] / "shared" / "data"))


def table(name: str) -> pd.DataFrame:
    file = DATA / f"{name}.csv.gz"
    if not file.exists():
        pytest.skip(f"LOUDLY: {file} is not here, so {name} was not replayed: set PENSTOCK_STREAMS to a folder that has it")
    with gzip.open(file) as opened:
        return pd.read_csv(opened)


def learner() -> ps.Learner:
    """Small, as it is the monitors that are looked at."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return ps.Learner(batch=HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=7, early_stopping=False))


# --- Elec2: one abrupt change of inputs, and every season that a market has -------------------------------------------


@ps.event("demanded")
class Demanded:
    id: ps.Id[str]
    market: ps.Key[str]
    nswprice: float
    nswdemand: float
    vicprice: float
    vicdemand: float
    transfer: float
    at: ps.EventTime


@ps.event("priced")
class Priced:
    id: ps.Key[str]
    up: bool
    at: ps.EventTime


@ps.model(
    scores=Demanded,
    features=[Demanded.nswprice, Demanded.nswdemand, Demanded.vicprice, Demanded.vicdemand, Demanded.transfer],
    label=ps.label(Priced.up, within="2d"),
    monitors=[ps.drift(every="1d")],
    retrain=ps.every("28d", on="90d", first="60d"),
    gates=[ps.no_worse(by=1.0, least=40)],
    rollout=[ps.shadow("1d")],
)
def up() -> ps.Learner:
    return learner()


ELEC2 = ps.Project("elec2", [up])
MIDNIGHT = 831_391_200_000_000
"""6 May 1996 14:00 UTC, which is when the first day of the market begins."""
OPENING = MIDNIGHT + 17_424 * 30 * MINUTE


def elec2(rows: int) -> list[Event]:
    names = ["nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    return _events(table("elec2")[:rows], names, 30 * MINUTE, MIDNIGHT, DAY, ("demanded", "priced", "market", "up"))


# --- INSECTS: 33 inputs without any season; warmer insects beat otherwise ------------------------------------------------


WINGS = [f"att{i}" for i in range(1, 34)]
_FIELDS = {"id": ps.Id[str], "trap": ps.Key[str], **dict.fromkeys(WINGS, float), "at": ps.EventTime}
Beat: Any = ps.event("beats")(type("Beat", (), {"__annotations__": _FIELDS, "__module__": __name__}))


@ps.event("named")
class Named:
    id: ps.Key[str]
    female: bool
    at: ps.EventTime


@ps.model(
    scores=Beat,
    features=[getattr(Beat, name) for name in WINGS],
    label=ps.label(Named.female, within="6h"),
    monitors=[ps.drift(every="6h")],
    retrain=ps.every("90d", on="90d", first="4d"),
)
def female() -> ps.Learner:
    return learner()


INSECTS = ps.Project("insects", [female])
MONDAY = 4 * DAY
WARMER = MONDAY + 14_028 * MINUTE
"""The concept changes about here: one insect a minute."""


def insects(rows: int) -> list[Event]:
    frame = table("insects_gradual_balanced")[:rows]
    frame["class"] = frame["class"].isin([2, 4, 11])
    return _events(frame, WINGS, MINUTE, MONDAY, HOUR, ("beats", "named", "trap", "female"))


# --- flights: the example, with a smaller learner ------------------------------------------------------------------------


@ps.model(
    scores=Scheduled,
    features=[Scheduled.distance, Origin, Carrier],
    label=ps.label(Arrived.late, within="48h"),
    monitors=[ps.drift(Origin, Carrier, every="1d")],
    retrain=ps.every("28d"),
    gates=[ps.no_worse(by=0.05)],
    rollout=[ps.shadow("1d")],
)
def late() -> ps.Learner:
    return learner()


FLIGHTS = ps.Project("flights", [late])


def _events(
    frame: pd.DataFrame, names: list[str], step: int, start: int, delay: int, said: tuple[str, str, str, str]
) -> list[Event]:
    """One answer asked for every `step`, its label `delay` later; `said`: topics, the key's name and the label's."""
    asked, told, key, label = said
    encode, found = msgspec.json.Encoder().encode, list[Event]()
    rows, labels = frame[names].to_numpy(np.float64).tolist(), frame["class"].astype(bool).tolist()
    for number, (row, truth) in enumerate(zip(rows, labels, strict=True)):
        name, at = f"r{number:06}", start + number * step
        value = encode({"id": name, key: "one", **dict(zip(names, row, strict=True)), "at": from_micros(at)})
        found.append((asked, b"one", value, at))
        found.append((told, name.encode(), encode({"id": name, label: truth, "at": from_micros(at + delay)}), at + delay))
    return sorted(found, key=lambda event: event[3])
