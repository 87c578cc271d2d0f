"""Penstock: streaming machine learning that closes the loop. One typed file says what; services do it over Kafka topics."""

from .client import AsyncFeatureClient, FeatureClient
from .duration import micros
from .errors import DefinitionError, PenstockError
from .event import EventTime, Id, Key, event
from .feature import Derived, Feature, count, derived, features, last, max, mean, min, since_last, sum
from .label import label
from .model import Learner, model
from .policy import canary, drift, every, incremental, no_worse, on_alarm, shadow, skill
from .project import Project
from .replay import replay

__all__ = [
    "AsyncFeatureClient",
    "DefinitionError",
    "Derived",
    "EventTime",
    "Feature",
    "FeatureClient",
    "Id",
    "Key",
    "Learner",
    "PenstockError",
    "Project",
    "canary",
    "count",
    "derived",
    "drift",
    "event",
    "every",
    "features",
    "incremental",
    "label",
    "last",
    "max",
    "mean",
    "micros",
    "min",
    "model",
    "no_worse",
    "on_alarm",
    "replay",
    "shadow",
    "since_last",
    "skill",
    "sum",
]
