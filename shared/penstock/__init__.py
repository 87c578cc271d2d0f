"""Penstock: streaming machine learning that closes the loop. One typed file says what; services do it over Kafka topics."""

import typing as _typing

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
from .canaries import known
from .compression import float16, int8
from .drift import drift
from .duration import micros
from .errors import DefinitionError, PenstockError
from .event import EventTime, Id, Key, event
from .expect import expect
from .fairness import fairness
from .feature import Derived, derived, features
from .frames.expectations import expectations
from .function import function
from .label import label, sources
from .model import Learner, model
from .online.client import AsyncFeatureClient, FeatureClient
from .policy import Policy, canary, covers, every, incremental, labels, no_worse, novelty, on_alarm, shadow, skill
from .profiling.profile import profile
from .project import Project
from .replay import replay
from .review import review
from .segment import segment
from .value import value

if _typing.TYPE_CHECKING:
    from .frames.asof import as_of
    from .frames.compute import compute
    from .frames.slices import slices
    from .frames.training import training_set
    from .scoring.loading import load_model

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
    "Policy",
    "Project",
    "among",
    "as_of",
    "canary",
    "code",
    "compute",
    "count",
    "covers",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "derived",
    "distinct",
    "drift",
    "event",
    "every",
    "expect",
    "expectations",
    "fairness",
    "features",
    "first",
    "float16",
    "function",
    "incremental",
    "int8",
    "known",
    "label",
    "labels",
    "last",
    "last_k",
    "load_model",
    "max",
    "mean",
    "micros",
    "min",
    "model",
    "no_worse",
    "novelty",
    "on_alarm",
    "profile",
    "quantile",
    "ratio",
    "replay",
    "review",
    "segment",
    "shadow",
    "since_last",
    "skill",
    "slices",
    "sources",
    "std",
    "sum",
    "top",
    "training_set",
    "value",
    "var",
]

_WHEN_USED = {
    "as_of": ".frames.asof",
    "compute": ".frames.compute",
    "load_model": ".scoring.loading",
    "slices": ".frames.slices",
    "training_set": ".frames.training",
}

if not _typing.TYPE_CHECKING:  # checkers know the names above, and no others

    def __getattr__(name: str) -> object:
        """Names that need pandas or numpy are imported when they are used, so that `import penstock` stays light."""
        if name not in _WHEN_USED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        found = globals()[name] = getattr(importlib.import_module(_WHEN_USED[name], __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
