"""Scorers: a version's artefact, opened and warm. What cannot be opened is never served, and that is said.

An ONNX model is one input `X`, float32 (rows, inputs) with NaN for missing, and an output `probabilities` (rows, 2). A
River snapshot is a classifier of named inputs, squashed (`penstock.inputs`).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import structlog

from penstock.artefact import Artefacts, load_river
from penstock.errors import PenstockError, Unreachable
from penstock.inputs import Floats, Matrix, squashed
from penstock.records import Candidate, Decision

from .meters import Meters
from .roster import ALIASES

__all__ = ["LinearScorer", "Member", "OnnxScorer", "RiverScorer", "Scorer", "Sessions", "linear"]

KEPT = 32
"""Scorers kept for reuse beyond those on duty; a boosted model of 150 trees takes some 5 MB."""
RETRY_SECONDS = 5.0
"""A file that cannot be read is looked for again this often; one that is wrong only when a decision names it again."""


class Scorer(Protocol):
    """`score` takes float32 (rows, inputs), NaN for missing, and gives float64 (rows,): the probability of True."""

    def score(self, X: Matrix) -> Floats: ...  # noqa: N803


@dataclass(frozen=True)
class Member:
    """A version with its scorer. `columns` picks its inputs among the model's; None takes them as they are."""

    version: str
    digest: str
    scorer: Scorer
    columns: tuple[int, ...] | None = None

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        return self.scorer.score(X if self.columns is None else X[:, self.columns])


class OnnxScorer:
    """An onnxruntime session on one thread (scale by processes: a small model gains nothing from two)."""

    def __init__(self, data: bytes, inputs: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        taken = [(i.name, i.type) for i in self._session.get_inputs()]
        if taken != [("X", "tensor(float)")]:
            raise PenstockError(f"the ONNX model takes {taken}, not one float tensor X", "export it with that signature")
        width = self._session.get_inputs()[0].shape[-1]
        if isinstance(width, int) and width != inputs:
            raise PenstockError(f"the ONNX model takes {width} inputs, its record names {inputs}", "register it again")
        if "probabilities" not in [o.name for o in self._session.get_outputs()]:
            raise PenstockError("the ONNX model has no output `probabilities`", "export it with zipmap off")

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        found = self._session.run(["probabilities"], {"X": X})[0]
        return np.asarray(found[:, 1], np.float64)


class RiverScorer:
    """Any River classifier, row by row."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        self._predict, self._names = model.predict_proba_one, tuple(names)

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        names, predict = self._names, self._predict
        rows = squashed(X).tolist()
        return np.array([predict(dict(zip(names, row, strict=True))).get(True, 0.0) for row in rows], np.float64)


class LinearScorer:
    """A logistic regression of standardised inputs, as one matrix product: the same numbers as River to 1e-9."""

    def __init__(self, means: Floats, scales: Floats, weights: Floats, intercept: float) -> None:
        self._means, self._factors, self._intercept = means, weights * scales, intercept

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        logits = (squashed(X) - self._means) @ self._factors + self._intercept
        with np.errstate(over="ignore"):
            found = 1.0 / (1.0 + np.exp(-logits))
        return np.where(logits < -30.0, 0.0, np.where(logits > 30.0, 1.0, found))  # as river.utils.math.sigmoid cuts


def linear(model: Any, names: Sequence[str]) -> LinearScorer | None:
    """The columnar twin of `StandardScaler | LogisticRegression` or of the latter alone; None for anything else."""
    from river.compose import Pipeline
    from river.linear_model import LogisticRegression
    from river.optim.losses import Log
    from river.preprocessing import StandardScaler

    steps = list(model.steps.values()) if type(model) is Pipeline else [model]
    if type(steps[-1]) is not LogisticRegression or type(steps[-1].loss) is not Log or len(steps) > 2:
        return None
    means, scales = np.zeros(len(names)), np.ones(len(names))
    if len(steps) == 2:
        scaler = steps[0]
        if type(scaler) is not StandardScaler or scaler.window_size is not None:
            return None
        means = np.array([scaler.means.get(name, 0.0) for name in names], np.float64)
        if scaler.with_std:
            variances = np.array([scaler.vars.get(name, 0.0) for name in names], np.float64)
            scales = np.where(variances > 0, 1.0 / np.sqrt(np.where(variances > 0, variances, 1.0)), 0.0)
    weights = np.array([steps[-1].weights.get(name, 0.0) for name in names], np.float64)
    return LinearScorer(means, scales, weights, float(steps[-1].intercept))


def _onnx(data: bytes, names: Sequence[str]) -> Scorer:
    return OnnxScorer(data, len(names))


def _river(data: bytes, names: Sequence[str]) -> Scorer:
    model = load_river(data)
    return linear(model, names) or RiverScorer(model, names)


_OPEN: dict[str, Callable[[bytes, Sequence[str]], Scorer]] = {"onnx": _onnx, "river": _river}


class Sessions:
    """The scorers of one process, by digest. Opening one takes 5 to 50 ms and happens when a version is registered,
    ahead of need. Whoever serves keeps the `Member`; here only the newest `KEPT` are remembered."""

    def __init__(self, artefacts: Artefacts, meters: Meters) -> None:
        self._artefacts, self._meters = artefacts, meters
        self._open: collections.OrderedDict[tuple[str, tuple[str, ...]], Scorer] = collections.OrderedDict()
        self._told: set[tuple[str, str]] = set()
        self._announced: dict[str, dict[str, str]] = {}
        self._logger = structlog.get_logger(service="inference")

    def member(self, decision: Decision, inputs: Sequence[str]) -> Member | None:
        """The version of a decision, ready to score rows of `inputs`; None when it cannot be served (said once).

        Raises Unreachable when its file cannot be read now, which may pass.
        """
        candidate = decision.candidate
        try:
            if candidate is None:
                raise PenstockError("its decision carries no candidate", "register it again")
            return Member(
                decision.version,
                candidate.artefact.sha256,
                self._scorer(candidate),
                _columns(candidate.inputs, inputs),
            )
        except PenstockError as error:
            passing = isinstance(error, Unreachable)
            if (decision.id, str(error)) not in self._told:
                self._told.add((decision.id, str(error)))
                self._meters.artefacts.labels(decision.model, "unreachable" if passing else "refused").inc()
                self._logger.error(
                    "version not served",
                    model=decision.model, version=decision.version, cause=str(error), fix=error.fix,
                )  # fmt: skip
            if passing:
                raise
            return None

    def announce(self, model: str, duties: dict[str, str]) -> None:
        """Log who is on duty, once a change, however many shards follow it (snapshots come all day: no line)."""
        lasting = {name: duties.get(name, "none") for name in ALIASES if name != "online"}
        if self._announced.get(model) != lasting:
            self._announced[model] = lasting
            self._logger.info("on duty", model=model, **lasting)

    def _scorer(self, candidate: Candidate) -> Scorer:
        key = (candidate.artefact.sha256, tuple(candidate.inputs))
        found = self._open.get(key)
        if found is None:
            opener = _OPEN.get(candidate.artefact.format)
            if opener is None:
                raise PenstockError(f"its format {candidate.artefact.format!r} is not onnx or river", "register it again")
            data = self._artefacts.get(candidate.artefact)
            try:
                found = opener(data, candidate.inputs)
                _warm(found, len(candidate.inputs))
            except PenstockError:
                raise
            except Exception as error:  # a runtime's own errors: whatever they are, the version cannot be served
                first = str(error).strip().partition("\n")[0][:300]
                raise PenstockError(f"it does not run: {type(error).__name__}: {first}", "fit it again") from None
            self._open[key] = found
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return found


def _columns(wanted: Sequence[str], inputs: Sequence[str]) -> tuple[int, ...] | None:
    if list(wanted) == list(inputs):
        return None
    missing = [name for name in wanted if name not in inputs]
    if missing:
        raise PenstockError(f"it was fitted on {missing[0]}, which the project no longer has", "refit it on this project")
    return tuple(inputs.index(name) for name in wanted)


def _warm(scorer: Scorer, inputs: int) -> None:
    """The first run is slow (and may fail): it happens here, on zeros, then on one row."""
    for rows in (8, 1):
        found = scorer.score(np.zeros((rows, inputs), np.float32))
        if found.shape != (rows,) or not ((found >= 0) & (found <= 1)).all():
            raise PenstockError("it does not answer with one probability a row", "fit it again")
