"""Penstock: streaming machine learning that closes the loop. One typed file says what; services do it over Kafka topics."""

from .duration import micros
from .errors import DefinitionError, PenstockError
from .event import EventTime, Id, Key, event
from .expect import expect
from .feature import Derived, Feature, count, derived, features, last, max, mean, min, since_last, sum
from .framecheck import expectations
from .label import label
from .model import Learner, model
from .policy import canary, drift, every, incremental, no_worse, on_alarm, shadow, skill
from .profile import profile
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
    "canary",
    "count",
    "derived",
    "drift",
    "event",
    "every",
    "expect",
    "expectations",
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
    "profile",
    "replay",
    "shadow",
    "since_last",
    "skill",
    "sum",
]
