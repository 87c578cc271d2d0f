"""Penstock: streaming machine learning that closes the loop. One typed file says what; services do it over Kafka topics."""

from .aggregate import (
    Feature,
    among,
    code,
    count,
    decayed_count,
    decayed_mean,
    decayed_sum,
    distinct,
    first,
    last,
    last_k,
    max,
    mean,
    min,
    quantile,
    ratio,
    since_last,
    std,
    sum,
    top,
    var,
)  # fmt: skip
from .duration import micros
from .errors import DefinitionError, PenstockError
from .event import EventTime, Id, Key, event
from .feature import Derived, derived, features
from .label import label
from .model import Learner, model
from .policy import canary, drift, every, incremental, no_worse, on_alarm, shadow, skill
from .project import Project
from .replay import replay

__all__ = [
    "DefinitionError",
    "Derived",
    "EventTime",
    "Feature",
    "Id",
    "Key",
    "Learner",
    "PenstockError",
    "Project",
    "among",
    "canary",
    "code",
    "count",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "derived",
    "distinct",
    "drift",
    "event",
    "every",
    "features",
    "first",
    "incremental",
    "label",
    "last",
    "last_k",
    "max",
    "mean",
    "micros",
    "min",
    "model",
    "no_worse",
    "on_alarm",
    "quantile",
    "ratio",
    "replay",
    "shadow",
    "since_last",
    "skill",
    "std",
    "sum",
    "top",
    "var",
]
