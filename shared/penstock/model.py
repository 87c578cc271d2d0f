"""Models: what is scored, from which inputs, against which label, and the policy around it.

    @ps.model(scores=Scheduled, features=[Scheduled.distance, Origin], label=ps.label(Arrived.late, within="48h"), ...)
    def late() -> ps.Learner:
        from sklearn.ensemble import HistGradientBoostingClassifier
        return ps.Learner(batch=HistGradientBoostingClassifier())

The function is called by the trainer only, so put heavy imports inside it.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from .aggregate import Feature
from .canaries import Canary, unknown
from .canaries import fit as fit_canaries
from .compression import Compression
from .event import Column, Event, event_of
from .fairness import Fairness
from .feature import Derived, View, columns_of, references, view_of
from .fingerprint import fingerprint
from .function import Function, around, functions_of
from .label import Label
from .mistake import mistake, nearest, together
from .policy import ANSWERS, LABEL, Coverage, Drift, Gate, Incremental, Labels, Monitor, Policy, Retrain, Stage
from .review import Reviewing, fit
from .segment import MOST_OF_CLASSES, MOST_SEGMENTS, Segment, called
from .value import Value

__all__ = ["BatchLearner", "Learner", "Model", "OnlineLearner", "model"]


class BatchLearner(Protocol):
    """scikit-learn's protocol: a classifier where the label is yes or no or a class, a regressor where it is a number. X is
    float32 (rows, inputs) with NaN for missing; y is bool, text, or float64."""

    def fit(self, X: Any, y: Any) -> Any: ...  # noqa: N803

    def predict(self, X: Any) -> Any: ...  # noqa: N803


class OnlineLearner(Protocol):
    """River's protocol of classifiers and regressors: `predict_proba_one` where the label is yes or no, or a class, `predict_one`
    where it is a number. x maps input names to sign(v) log(1 + |v|), missing as 0, so that heavy tails do not throw a linear
    model off; y is bool, the name of a class, or float.

    What is served are linear pipelines, with at most one StandardScaler: LogisticRegression of yes and no; LinearRegression of
    numbers, with `loss=optim.losses.Quantile(0.9)` of a quantile; SoftmaxRegression or OneVsRestClassifier of LogisticRegression
    of classes."""

    def learn_one(self, x: dict[str, float], y: Any) -> Any: ...


@dataclass(frozen=True)
class Learner:
    """One or two ways to fit the same model. With both, each event is answered by a mixture whose weights follow each one's
    faded loss under the true label delay: softmax(-`sharpness` x loss), `half_life` outcomes."""

    batch: BatchLearner | None = None
    online: OnlineLearner | None = None
    sharpness: float = 50.0
    half_life: int = 5_000
    compress: Compression | None = None
    """How the fitted batch model is made smaller: `ps.int8(...)` or `ps.float16(...)`."""

    def __post_init__(self) -> None:
        if self.batch is None and self.online is None:
            mistake("a Learner without a learner", "give batch=, online= or both")
        if self.batch is None and self.compress is not None:
            mistake("a Learner with compress= and no batch=", "only fitted batch models are compressed: leave it out")


@dataclass(frozen=True, repr=False)
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
    gates: tuple[Gate | Coverage, ...] = ()
    rollout: tuple[Stage, ...] = ()
    explain: float = 0.0
    """Share of the answers whose contributions are published with the statistics."""
    value: Value | None = None
    segments: tuple[Segment, ...] = ()
    """What answers are counted apart by: as declared, and as monitors of fairness ask for."""
    review: Reviewing | None = None
    canaries: tuple[Canary, ...] = ()
    before: Function | None = None
    """What learners see is what this gives of the inputs."""
    after: Function | None = None
    """What is answered is what this gives of the score."""
    keep_first: bool = False
    """Whether the first version ever in charge goes on to be asked, as a baseline."""

    def __repr__(self) -> str:
        return f"<model {self.name}>"

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for item in self.items for name in columns_of(item))

    @cached_property
    def functions(self) -> dict[str, Function]:
        """The functions (`ps.function`) of the model's file, and its own, by name. A version says which it was fitted with, and
        goes on with that as long as it is there, also when the model declares another."""
        own = [made for made in (self.before, self.after) if made is not None]
        return functions_of(self.build.__module__) | {made.__name__: made for made in own}

    @cached_property
    def codes(self) -> dict[str, str]:
        """The fingerprints of the functions, by name."""
        return {name: fingerprint(made) for name, made in self.functions.items()}

    @property
    def incremental(self) -> Incremental | None:
        return next((t for t in self.retrain.triggers if isinstance(t, Incremental)), None)

    def under(self, policy: Policy) -> Model:
        """The same model under another policy. DefinitionError where a monitor watches what is no input of it, or a gate is of
        answers that it does not give."""
        monitors = self.monitors if policy.monitors is None else tuple(policy.monitors)
        _watch(f"model {self.name}", monitors, self.inputs, self.label, self.scores)
        _gate(f"model {self.name}", policy.gates or (), self.label)
        return replace(
            self,
            monitors=tuple(m.of(self.label, self.name) if isinstance(m, Fairness) else m for m in monitors),
            retrain=policy.retrain or self.retrain,
            gates=self.gates if policy.gates is None else tuple(policy.gates),
            rollout=self.rollout if policy.rollout is None else tuple(policy.rollout),
        )

    def spelled(self) -> dict[str, Any]:
        """Everything that decides what the model means, for the fingerprint."""
        return {
            "name": self.name,
            "scores": self.scores.topic,
            "inputs": self.inputs,
            "label": [repr(self.label.column), self.label.within, self.label.otherwise],
            "policy": repr((self.monitors, self.retrain, self.gates, self.rollout)),
            "code": inspect.getsource(self.build),
            **({"sources": [repr(self.label.sources.column), self.label.sources.caps]} if self.label.sources else {}),
            **({"quarantine": True} if self.label.sources and self.label.sources.quarantine else {}),
            **({"explain": self.explain} if self.explain else {}),
            **({"value": repr(self.value)} if self.value else {}),
            **({"classes": self.label.classes} if self.label.classes else {}),
            **({"quantile": self.label.quantile} if self.label.quantile is not None else {}),
            **({"segments": [[s.name, s.levels, s.edges] for s in self.segments]} if self.segments else {}),
            **({"review": repr(self.review)} if self.review else {}),
            **({"canaries": repr(self.canaries)} if self.canaries else {}),
            **({"before": [self.before.__name__, self.codes[self.before.__name__]]} if self.before else {}),
            **({"after": [self.after.__name__, self.codes[self.after.__name__]]} if self.after else {}),
            **({"keep_first": True} if self.keep_first else {}),
        }


P = ParamSpec("P")
T = TypeVar("T")

_OF_LABELS: Final = ("sources", "within", "otherwise")


def _placed(declare: Callable[P, T]) -> Callable[P, T]:
    """Says of a keyword that a model has not where it belongs."""
    known = list(inspect.signature(declare).parameters)

    @wraps(declare)
    def declared(*args: P.args, **said: P.kwargs) -> T:
        for name in said.keys() - known:
            del said[name]
            fix = f"it belongs to the label: label=ps.label(..., {name}=...)" if name in _OF_LABELS else nearest(name, known)
            mistake(f"a model has no {name}=", fix)
        return declare(*args, **said)

    return declared


@_placed
def model(
    *,
    scores: type,
    features: Sequence[object],
    label: Label,
    monitors: Sequence[Monitor] = (),
    retrain: Retrain | None = None,
    gates: Sequence[Gate | Coverage] = (),
    rollout: Sequence[Stage] = (),
    explain: float = 0.0,
    value: Value | None = None,
    segments: Sequence[object] = (),
    review: Reviewing | None = None,
    canaries: Sequence[Canary] = (),
    before: Function | None = None,
    after: Function | None = None,
    keep_first: bool = False,
) -> Callable[[Callable[[], Learner]], Model]:
    """Declare a model. The decorated function returns the Learner; its name is the model's name.

    `explain` is the share of answers (0 to 1) that monitoring explains: what moves them is published with the statistics of each
    window. An answer of 100 trees takes it 2 ms. `value` is what answers are worth, see `ps.value`.
    `segments` are columns of the scored event (see `ps.segment`) by which the answers are counted apart; the model need not see
    them, and does not unless they are among `features`.
    `review` has people look at answers, see `ps.review`. `canaries` are rows that every version must know, see `ps.known`.
    `before` and `after` are functions (`ps.function`) that every version is fitted and asked with, see `penstock.function`:
    learners see what `before` gives of the inputs, answered is what `after` gives of the score.
    `keep_first` goes on asking the version that was first in charge, though another answers: the baseline that says what
    retraining was worth, on the same outcomes. It costs one more scoring of each row.
    """

    def declare(build: Callable[[], Learner]) -> Model:
        event = event_of(scores)
        items = [item for entry in features for item in references(entry)]
        views = tuple(dict.fromkeys(view_of(item.owner) for item in items if not isinstance(item, Column)))
        said = f"model {build.__name__}"
        apart = _segments(segments, monitors)
        with together():
            for found in apart:
                _check(said, found, event)
            if len(apart) > MOST_SEGMENTS:
                mistake(f"{said}: {len(apart)} segments", f"declare at most {MOST_SEGMENTS}")
            if len(apart) * len(label.classes) > MOST_OF_CLASSES:
                fix = f"declare fewer segments: times classes at most {MOST_OF_CLASSES}, as each is counted in each level"
                mistake(f"{said}: {len(apart)} segments of {len(label.classes)} classes", fix)
            asked = tuple(each.of(label, said) if isinstance(each, Fairness) else each for each in monitors)
            for monitor in asked:
                if isinstance(monitor, Fairness):
                    known = next(found for found in apart if found.column is monitor.segment.column).declared
                    if monitor.segment.column.event is event and monitor.against and known and monitor.against not in known:
                        mistake(f"{said}: fairness(against={monitor.against!r})", nearest(monitor.against, known))
            for item in items:
                if isinstance(item, Column) and item.event is not event:
                    mistake(f"{said}: {item!r} is no column of {event!r}, the event that is scored", "make a window of it")
                if isinstance(item, Column) and item.kind != "number":
                    mistake(f"{said}: {item!r} holds {item.kind}, and an input is a number", "make a view by it, or encode it")
            for name, times in Counter(map(repr, items)).items():
                if times > 1:
                    mistake(f"{said}: input {name} is listed twice", "list it once")
            for view in views:
                if event not in view.by:
                    mistake(
                        f"{said}: no column of {event!r} names the entity of {view.name}", "add one to its `by`, or leave it out"
                    )
            _watch(said, monitors, [name for item in items for name in columns_of(item)], label, event)
            if event.id is None:
                mistake(f"{said}: {event!r} is scored and needs an id that labels answer", "mark a column ps.Id[str]")
            for monitor in monitors:
                if isinstance(monitor, Labels) and monitor.within > label.within:
                    mistake(f"{said}: labels(within=...) is longer than the horizon of the label", "shorten it, or leave it out")
            if value is not None and label.task != "binary":
                mistake(
                    f"{said}: value= is of answers yes and no, and the label is not", "leave it out, or make the label a bool"
                )
            if not 0 <= explain <= 1:
                mistake(f"{said}: explain={explain} is not a share", "write a number between 0 and 1, such as explain=0.01")
            if review is not None:
                fit(build.__name__, label, review)
            _gate(said, gates, label)
            rows = fit_canaries(build.__name__, label, canaries)
            names = [name for item in items for name in columns_of(item)]
            if not any(_misspelt(name, event) for name in names):  # else what is missing follows from that, and it is told
                for name in unknown(canaries, names):
                    fix = nearest(name, names) if _misspelt(name, event) else "add it to features, or leave it out"
                    mistake(f"{said}: a canary names {name}, which is no input of the model", fix)
                for role, made in (("before", before), ("after", after)):
                    if made is not None:
                        around(said, role, made, names, len(label.classes))
            shares = [stage.share for stage in rollout]
            if shares != sorted(shares):
                mistake(f"{said}: rollout shares fall: {shares}", "order the stages so that each answers at least as many")
        return Model(
            build.__name__, event, tuple(items), views, label, build,
            asked, retrain or Retrain(()), tuple(gates), tuple(rollout), explain, value, apart, review, rows,
            before, after, keep_first,
        )  # fmt: skip

    return declare


def _misspelt(name: str, event: Event) -> bool:
    """Whether this stands in for a column that the event has not: a mistake that is told where it was made."""
    owner, _, column = name.partition(".")
    return owner == event.type.__name__ and column not in event.columns


def _watch(said: str, monitors: Sequence[Monitor], inputs: Sequence[str], label: Label, event: Event) -> None:
    """Whether what monitors of drift watch is there to be watched."""
    watched = {name for monitor in monitors if isinstance(monitor, Drift) for name in monitor.inputs}
    for name in sorted(watched - {*ANSWERS, *inputs}):
        if any(_misspelt(known, event) for known in inputs):
            break  # it follows from that
        mistake(f"{said}: drift watches {name}, which is no input of the model", nearest(name, [*inputs, *ANSWERS]))
    if LABEL in watched and label.task != "binary":
        what = "a number" if label.task == "regression" else "one of several classes"
        mistake(f'{said}: drift("label") is of labels yes and no, and this one is {what}', 'watch "score" instead')


def _gate(said: str, gates: Sequence[Gate | Coverage], label: Label) -> None:
    if label.quantile is None and any(isinstance(gate, Coverage) for gate in gates):
        mistake(f"{said}: covers() is of answers that are a quantile", "declare it: ps.label(..., quantile=0.9)")


def _segments(declared: Sequence[object], monitors: Sequence[Monitor]) -> tuple[Segment, ...]:
    """One of each column; what a monitor names by its column alone is as it is declared."""
    found: dict[Column, Segment] = {}
    for each in [*map(called, declared), *(monitor.segment for monitor in monitors if isinstance(monitor, Fairness))]:
        known = found.setdefault(each.column, each)
        if each != known and (each.levels or each.edges):
            if known.levels or known.edges:
                mistake(f"segment {each.name} is declared twice", "declare it once, and name its column elsewhere")
            found[each.column] = each
    return tuple(found.values())


def _check(said: str, found: Segment, event: Event) -> None:
    if found.column.event is not event:
        mistake(f"{said}: segment {found.name} is no column of {event!r}, the event that is scored", "name one of its own")
    elif found.column.kind == "time":
        mistake(f"{said}: segment {found.name} is a time", "name a column of text or numbers")
    elif found.column.type in (int, float) and not found.edges:
        mistake(f"{said}: segment {found.name} is a number", f"say where it is cut: ps.segment({found.name}, edges=(...))")
