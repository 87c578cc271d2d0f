"""Desk: one model's place in the trainer: its outcomes, its online learner, and how a job is carried out.

What a job gives follows from the job, the outcomes known before it, and how many versions there have been; not from
when it runs, how far outcomes have been read, or whether the trainer was restarted.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version as installed
from typing import Any

import msgspec
import numpy as np

from penstock import duration
from penstock.artefact import Artefacts
from penstock.canaries import broken
from penstock.contributions.explainer import dumped
from penstock.errors import PenstockError, Refused
from penstock.event import from_micros
from penstock.inputs import Floats, Matrix
from penstock.model import Model
from penstock.policy import SCORE, Drift, Incremental
from penstock.project import Project
from penstock.quarantine import automatic, known, standing
from penstock.records import Alarm, Artefact, Candidate, Code, Compressed, Profile, Quarantine, Run
from penstock.scoring.around import Around, Functions, Plan
from penstock.snapshot import dump_river
from penstock.statistics.kinds import kind_of
from penstock.statistics.novelty import profile_of
from penstock.statistics.reference import Numbers as Bins
from penstock.topics import Topics

from .compression import compressed
from .examples import Examples, Rows
from .explainer import explainer
from .fitting import Unfit, answering, fit
from .forgetting import Forgetting
from .pipeline import Lines, fits, tame
from .reference import by_level, reference
from .school import School
from .triggers import Job, Triggers

__all__ = ["Desk", "Made", "Numbers"]

PROVEN = 1_000
"""Rows, the newest it was taught, on which an exported learner is proven to answer as it does itself."""
PREFIX = {"full": "v", "incremental": "online-"}


@dataclass(frozen=True)
class Numbers:
    """The newest version number of each kind."""

    full: int = 0
    incremental: int = 0

    def seen(self, run: Run) -> Numbers:
        number = int(run.version.removeprefix(PREFIX[run.kind]) or 0)
        return replace(self, **{run.kind: max(number, getattr(self, run.kind))})


@dataclass(frozen=True)
class Made:
    """What came of a job; no candidate where the run says why."""

    run: Run
    candidate: Candidate | None


@dataclass
class _Work:
    """A run record in the making."""

    metrics: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    artefact: Artefact | None = None
    explainer: Artefact | None = None
    compression: Compressed | None = None
    reference: dict[str, Bins] = field(default_factory=dict)
    scores: Bins | None = None
    hours: Artefact | None = None
    spread: dict[str, float] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    profile: Profile | None = None
    customs: dict[int, dict[str, float]] = field(default_factory=dict)
    functions: dict[str, Code] = field(default_factory=dict)
    segments: Artefact | None = None


class Desk:
    """`threads` and `seed` are for one fit. `clock` measures how long jobs take; without it they take 0 seconds."""

    def __init__(
        self,
        model: Model,
        project: Project,
        artefacts: Artefacts,
        threads: int = 1,
        seed: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.model = model
        label = model.label
        horizon = label.within if label.waits else None
        self.examples = Examples(model.inputs, horizon, label.sources.limits if label.sources else {}, label, model.segments)
        self.triggers, self.numbers, self.forgetting = Triggers(), Numbers(), Forgetting()
        self._project, self._artefacts, self._clock = project, artefacts, clock
        self._threads, self._seed = threads, seed
        self.quarantines: dict[str, Quarantine] = {}
        """What people said, by id; the last word counts."""
        self.alarms: dict[str, Alarm] = {}
        """About the sources of labels, by id."""
        learner = model.build()
        self._functions = Functions(Plan.of(model))
        self._batch = learner.batch is not None
        windows = [trigger.window for trigger in model.retrain.triggers if not isinstance(trigger, Incremental)]
        self._longest = max(windows) if windows and all(windows) and learner.online is None else 0
        """How far back any fit looks, where none looks at all; a person may ask for one as of a time that is past."""
        self._begin()

    def work(self, job: Job, before: Triggers, numbers: Numbers) -> Made:
        """Carry out a job: minutes of processor time at most, no waiting. `before` is what had been done when it
        started."""
        began = self._clock() if self._clock else 0.0
        span, held = self.examples.known(job.at), self._held(job)
        if self._longest:
            self.examples.trim(job.at - 2 * self._longest)
        else:
            self._teach(span.stop, held)
        work = _Work()
        try:
            if job.kind == "full":
                self._full(job, work, held)
            else:
                self._incremental(before, work, held)
        except PenstockError as error:
            work.data["refused"] = str(error)
        version = f"{PREFIX[job.kind]}{getattr(numbers, job.kind) + 1}" if work.artefact else ""
        run = Run(
            id=job.id,
            model=job.model,
            kind=job.kind,
            cause=job.cause,
            at=from_micros(job.at),
            parameters=work.parameters,
            seed=self._seed,
            data=work.data,
            code=self._project.fingerprint,
            environment=_environment(),
            metrics=work.metrics,
            seconds=self._clock() - began if self._clock else 0.0,
            version=version,
            compression=work.compression,
        )
        return Made(run, self._candidate(run, work) if work.artefact else None)

    def _begin(self) -> None:
        learner, label = self.model.build(), self.model.label
        online, self._unlearned = learner.online, ""
        try:
            if online is not None and (self.model.before is not None or self.model.after is not None):
                raise Unfit(
                    "online= learns inputs as they are; give batch= beside before= and after=, and leave ps.incremental out"
                )
            fits(online, self.model.inputs, label)
        except Unfit as error:
            online, self._unlearned = None, str(error)
        self.school = School(online, self.model.inputs, learner.sharpness, learner.half_life, label)
        self._free = np.empty(0, np.bool_)

    def _held(self, job: Job) -> list[Quarantine]:
        """The quarantines of a job. A person who asks for a fit has seen the window that it is fitted at, and what was said since
        holds for it."""
        found = known(self.quarantines.values(), automatic(self.model, self.alarms.values()))
        return standing(found, job.at + job.cause.startswith("command:"))

    def _teach(self, stop: int, held: Sequence[Quarantine]) -> None:
        """Teach what is known and not taught yet. Nothing can be unlearned: where other rows of those taught are free now, the
        school begins anew."""
        free = self.examples.free(stop, held)
        both = min(len(free), len(self._free))
        if not np.array_equal(free[:both], self._free[:both]):
            self._begin()
        if (taught := len(self._free)) < stop:
            self.school.teach(self.examples.rows(slice(taught, stop), held))
            self._free = free

    def _full(self, job: Job, work: _Work, held: Sequence[Quarantine]) -> None:
        learner = self.model.build()
        if learner.batch is None:
            raise Unfit("a full fit needs a learner with batch=")
        rows = self.examples.window(job.at, job.window, held)
        work.data |= self._described(rows) | {"window": duration.spoken(job.window) if job.window else "all"}
        label, task = self.model.label, self.model.label.task
        around = self._functions.declared(task) or Around()
        rows = self._taken(rows, around, work)
        names = self.model.name, self.model.inputs
        fitted = fit(learner.batch, *names, rows.X, rows.label, self._threads, self._seed, label, around)
        if left_out := Counter(self.examples.left_out(job.at)) + Counter(rows.beyond):
            work.data["left_out"] = dict(sorted(left_out.items()))
        if unlike := self.examples.unlike(job.at):
            work.data["of_another_label"] = unlike
        if fitted.empty:
            work.data["inputs_without_values"] = list(fitted.empty)
        work.parameters["batch"] = {"learner": type(learner.batch).__name__, **_settings(learner.batch)}
        work.metrics, work.reference, work.scores = fitted.metrics, fitted.reference, fitted.scores
        periods = sorted({m.every for m in self.model.monitors if isinstance(m, Drift)}) or [duration.DAY]
        hours, work.customs = reference(rows.X, rows.time, fitted.reference, periods)
        work.spread = work.customs.get(periods[0], {})
        work.hours = self._artefacts.put(hours.dumped(), "npz")
        if self.model.segments:
            levels = self.examples.levels(rows)
            apart = by_level(rows.X, rows.time, levels, fitted.reference, work.customs)
            work.segments = self._artefacts.put(apart, "levels")
        work.profile = profile_of(self.model.inputs, rows.X)
        onnx = fitted.onnx
        if learner.compress is not None:  # judged by the model's own answers, before any function
            seen, timed = around.seen(self.model.inputs, rows.X)[0], self._clock is not None
            onnx, work.compression = compressed(onnx, learner.compress, seen, rows.label, timed, label, fitted.classes)
        whole = self._whole(around, answering(onnx, task))
        if around.codes:
            around.prove(self.model.inputs, rows.X, answering(onnx, task))
        self._ask(whole, work, fitted.classes)
        found = explainer(onnx, whole, rows.X, self._seed, task, surrounded=bool(around.codes))
        work.data["explained"] = {"kind": found.kind, "scale": found.scale}
        work.explainer = self._artefacts.put(dumped(found), "npz")
        work.classes = list(fitted.classes)
        work.artefact = self._artefacts.put(onnx, "onnx")

    def _taken(self, rows: Rows, around: Around, work: _Work) -> Rows:
        """The rows that the functions around the model take; the run says how many they refuse. Unfit where one fails."""
        work.functions = around.codes
        if not work.functions:
            return rows
        work.parameters["functions"] = {role: msgspec.to_builtins(code) for role, code in work.functions.items()}
        _, why = around.seen(self.model.inputs, rows.X)
        for place, error in why.items():
            if not isinstance(error, Refused):
                raise Unfit(f"row {place} of {len(rows)}: {getattr(error, 'why', error)}")
        if why:
            work.data["refused_by_function"] = {"rows": len(why), "first": str(next(iter(why.values())))}
        return rows.where(~np.isin(np.arange(len(rows)), list(why)))

    def _whole(self, around: Around, answers: Callable[[Matrix], Floats]) -> Callable[[Matrix], Floats]:
        """What is answered, with functions around the model."""
        return partial(around.score, self.model.inputs, model=answers) if around.codes else answers

    def _incremental(self, before: Triggers, work: _Work, held: Sequence[Quarantine]) -> None:
        school, label = self.school, self.model.label
        if self._unlearned:
            raise Unfit(self._unlearned)
        if school.learner is None:
            raise Unfit("a snapshot needs a learner with online=")
        since = self.examples.known(before.fired.get("increment", 0)).stop
        work.data |= self._described(self.examples.rows(slice(since, max(since, len(self._free))), held))
        if school.recent_loss is None:
            raise Unfit("no outcome is known yet")
        mixture = school.mixture
        work.parameters |= {
            "online": str(school.learner),
            "sharpness": mixture.sharpness,
            "half_life": mixture.half_life,
        }
        named = f"recent_{kind_of(label).loss.replace(' ', '_')}"
        work.metrics = {"rows": float(school.taught), named: school.recent_loss}
        if mixture.weight:
            work.metrics |= {
                "faded_batch": mixture.batch / mixture.weight,
                "faded_online": mixture.online / mixture.weight,
            }
        if label.task == "binary":
            self._ask(school.answers, work)
            work.artefact = self._artefacts.put(dump_river(school.learner), "river")
        else:
            self._export(work, held)

    def _export(self, work: _Work, held: Sequence[Quarantine]) -> None:
        """The online learner of numbers or classes, as ONNX, and what explains it."""
        label, taught = self.model.label, np.flatnonzero(self._free)
        known = self.examples.rows(slice(int(taught[-PROVEN:][0]), len(self._free)), held)
        lines = Lines.of_river(self.school.learner, self.model.inputs, label)
        onnx = lines.onnx(self.model.name)
        own = self.school.answers(known.X, lines.classes)
        if label.task == "regression":
            tame(label, own, known.label)
        work.metrics["parity_max"] = lines.proven(onnx, own, known.X)
        work.metrics["parity_rows"] = float(len(known))
        score = answering(onnx, label.task)
        self._ask(score, work, lines.classes)
        found = lines.explainer(score, known.X, self._seed)
        work.data["explained"] = {"kind": found.kind, "scale": found.scale}
        work.explainer = self._artefacts.put(dumped(found), "npz")
        work.classes = list(lines.classes)
        work.artefact = self._artefacts.put(onnx, "onnx")

    def _ask(self, answers: Callable[[Matrix], Floats], work: _Work, classes: Sequence[str] = ()) -> None:
        """Ask what is known; Unfit where it is answered otherwise."""
        failed = broken(self.model.canaries, self.model.inputs, answers, classes)
        if failed:
            work.data["canaries"] = failed
            first = failed[0]
            said = " at ".join(str(first[each]) for each in ("class", "answer") if each in first)
            raise Unfit(
                f"{len(failed)} of {len(self.model.canaries)} canaries are answered otherwise, such as {first['inputs']}: "
                f"{said}, known {first['known']}"
            )

    def _candidate(self, run: Run, work: _Work) -> Candidate:
        assert work.artefact is not None
        columns = work.reference | ({SCORE: work.scores} if work.scores else {})
        return Candidate(
            id=f"{run.id}.{run.version}",
            model=run.model,
            version=run.version,
            kind=run.kind,
            at=run.at,
            artefact=work.artefact,
            inputs=list(self.model.inputs),
            weights=self._weights(),
            edges={name: list(column.edges) for name, column in work.reference.items()},
            reference={name: list(column.counts[: column.missing_cell + 1]) for name, column in work.reference.items()},
            metrics=work.metrics,
            run=run.id,
            fingerprint=self._project.fingerprint,
            explainer=work.explainer,
            hours=work.hours,
            spread=work.spread,
            task=self.model.label.task,
            classes=work.classes,
            grid={name: [column.centre, column.unit] for name, column in columns.items()},
            scores=list(work.scores.edges) if work.scores else [],
            profile=work.profile,
            customs=work.customs,
            functions=work.functions,
            segments=work.segments,
        )

    def _weights(self) -> dict[str, float]:
        if self.school.learner is None:
            return {"batch": 1.0}
        return self.school.mixture.weights if self._batch else {"online": 1.0}

    def _described(self, rows: Rows) -> dict[str, Any]:
        """Which rows: enough to find them again in the log, and to see that they are the same."""
        said: dict[str, Any] = {
            "topic": Topics(self._project).outcomes(self.model.name),
            "positions": rows.positions,
            "rows": len(rows),
        }
        if rows.quarantined:
            said["quarantined"] = rows.quarantined
        if len(rows):
            said |= {"from": from_micros(int(rows.time.min())), "to": from_micros(int(rows.time.max()))}
        return msgspec.to_builtins({**said, "sha256": rows.digest})  # type: ignore[no-any-return]


def _settings(learner: Any) -> dict[str, Any]:
    """get_params as JSON has it; what JSON lacks is spelled."""
    found = learner.get_params(deep=True) if hasattr(learner, "get_params") else {}
    return {name: value if _plain(value) else str(value) for name, value in sorted(found.items())}


def _plain(value: object) -> bool:
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, bool | int | str | None)


@cache
def _environment() -> dict[str, str]:
    packages = ("penstock", "numpy", "onnx", "onnxruntime", "river", "scikit-learn", "skl2onnx")
    return {"python": platform.python_version(), **{name: installed(name) for name in packages}}
