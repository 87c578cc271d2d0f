"""Models: what is scored, from which inputs, against which label, and the policy around it.

    @ps.model(scores=Scheduled, features=[Scheduled.distance, Origin], label=ps.label(Arrived.late, within="48h"), ...)
    def late() -> ps.Learner:
        from sklearn.ensemble import HistGradientBoostingClassifier
        return ps.Learner(batch=HistGradientBoostingClassifier())

The function is called by the trainer only, so put heavy imports inside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import DefinitionError
from .event import Column, Event, event_of
from .feature import Derived, Feature, View, references, view_of
from .label import Label
from .policy import Gate, Incremental, Monitor, Retrain, Stage, stages

__all__ = ["BatchLearner", "Learner", "Model", "OnlineLearner", "model"]


class BatchLearner(Protocol):
    """scikit-learn's classifier protocol. X is float32 (rows, inputs) with NaN for missing; y is bool."""

    def fit(self, X: Any, y: Any) -> Any: ...  # noqa: N803

    def predict_proba(self, X: Any) -> Any: ...  # noqa: N803


class OnlineLearner(Protocol):
    """River's classifier protocol. x maps input names to sign(v) log(1 + |v|), missing as 0, so that heavy tails do not
    throw a linear model off; y is bool."""

    def learn_one(self, x: dict[str, float], y: bool) -> Any: ...

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]: ...


@dataclass(frozen=True)
class Learner:
    """One or two ways to fit the same model. With both, each event is answered by a mixture whose weights follow each one's
    faded loss under the true label delay: softmax(-`sharpness` x loss), `half_life` outcomes."""

    batch: BatchLearner | None = None
    online: OnlineLearner | None = None
    sharpness: float = 50.0
    half_life: int = 5_000

    def __post_init__(self) -> None:
        if self.batch is None and self.online is None:
            raise DefinitionError("a Learner without a learner", "give batch=, online= or both")


@dataclass(frozen=True)
class Model:
    """A model as declared. `inputs` names what the learner sees, in order: `Event.column` or `View.feature`."""

    name: str
    scores: Event
    items: tuple[Column | Feature[float] | Derived[float], ...]
    views: tuple[View, ...]
    label: Label
    build: Callable[[], Learner]
    monitors: tuple[Monitor, ...] = ()
    retrain: Retrain = field(default_factory=lambda: Retrain(()))
    gates: tuple[Gate, ...] = ()
    rollout: tuple[Stage, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(repr(item) for item in self.items)

    @property
    def incremental(self) -> Incremental | None:
        return next((t for t in self.retrain.triggers if isinstance(t, Incremental)), None)

    def spelled(self) -> dict[str, Any]:
        """Everything that decides what the model means, for the fingerprint."""
        return {
            "name": self.name,
            "scores": self.scores.topic,
            "inputs": self.inputs,
            "label": [repr(self.label.column), self.label.within, self.label.otherwise],
            "policy": repr((self.monitors, self.retrain, self.gates, self.rollout)),
            "code": inspect.getsource(self.build),
        }


def model(
    *,
    scores: type,
    features: Sequence[object],
    label: Label,
    monitors: Sequence[Monitor] = (),
    retrain: Retrain | None = None,
    gates: Sequence[Gate] = (),
    rollout: Sequence[Stage] = (),
) -> Callable[[Callable[[], Learner]], Model]:
    """Declare a model. The decorated function returns the Learner; its name is the model's name."""

    def declare(build: Callable[[], Learner]) -> Model:
        event = event_of(scores)
        items: list[Column | Feature[float] | Derived[float]] = []
        views: list[View] = []
        problems = []
        for entry in features:
            for item in references(entry):
                items.append(item)
                if isinstance(item, Feature | Derived):
                    views.append(view_of(item.owner))
                if isinstance(item, Column):
                    if item.event is not event:
                        problems.append(f"{item!r} is not a column of {event!r}, the event that is scored")
                    if item.kind != "number":
                        problems.append(f"{item!r} holds {item.kind}: an input is a number (make a view by it, or encode it)")
        problems += [
            f"input {name} is listed twice"
            for name in sorted({repr(i) for i in items})
            if [repr(i) for i in items].count(name) > 1
        ]
        problems += [
            f"{v.name} has no `by` column of {event!r}, so no entity to look up"
            for v in dict.fromkeys(views)
            if event not in v.by
        ]
        if event.id is None:
            problems.append(f"{event!r} is scored and needs an id that labels can answer: mark a column ps.Id[str]")
        if problems:
            raise DefinitionError(f"model {build.__name__}: " + "; ".join(problems), "correct the @ps.model(...) above it")
        return Model(
            build.__name__, event, tuple(items), tuple(dict.fromkeys(views)), label, build,
            tuple(monitors), retrain or Retrain(()), tuple(gates), stages(rollout),
        )  # fmt: skip

    return declare
