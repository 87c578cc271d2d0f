"""Scorers: a version's artefact, opened and warm. What cannot be opened is never served, and that is said.

An ONNX model is one input `X`, float32 (rows, inputs) with NaN for missing, and an output `probabilities` (rows, 2). A
River snapshot is a classifier of named inputs, squashed (`penstock.inputs`).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import structlog

from penstock.artefact import Artefacts
from penstock.errors import PenstockError, Unreachable
from penstock.inputs import Floats, Matrix, squashed
from penstock.records import Candidate, Decision
from penstock.snapshot import load_river

from .graph import Graph
from .meters import Meters
from .roster import ALIASES

__all__ = ["Member", "OnnxScorer", "RiverScorer", "Scorer", "Sessions"]

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
    """A graph that gives probabilities."""

    def __init__(self, data: bytes, inputs: int) -> None:
        self._graph = Graph(data)
        signature = self._graph.signature
        taken = [(tensor.name, tensor.datatype) for tensor in signature.inputs]
        if taken != [("X", "FP32")]:
            raise PenstockError(f"the ONNX model takes {taken}, not one FP32 tensor X", "export it with that signature")
        width = signature.inputs[0].shape[-1]
        if width not in (-1, inputs):
            raise PenstockError(f"the ONNX model takes {width} inputs, its record names {inputs}", "register it again")
        if "probabilities" not in signature.names:
            raise PenstockError("the ONNX model has no output `probabilities`", "export it with zipmap off")

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        parts = [X] if self._graph.signature.batched else [row[None] for row in X]  # the same row gets the same answer
        found = [self._graph.run(("probabilities",), {"X": part})[0][:, 1] for part in parts]
        return np.concatenate(found).astype(np.float64) if found else np.empty(0)


class RiverScorer:
    """River's LogisticRegression, with or without StandardScaler before it, as one matrix product: the numbers that
    `predict_proba_one` gives row by row, to 1e-9."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        from river.compose import Pipeline
        from river.linear_model import LogisticRegression
        from river.optim.losses import Log
        from river.preprocessing import StandardScaler

        *before, learner = model.steps.values() if type(model) is Pipeline else [model]
        plain = all(type(step) is StandardScaler and step.window_size is None for step in before)
        if type(learner) is not LogisticRegression or type(learner.loss) is not Log or not plain or len(before) > 1:
            raise PenstockError("the River model is not LogisticRegression after at most one StandardScaler", "fit such a one")
        weights = np.array([learner.weights.get(name, 0.0) for name in names], np.float64)
        self._means, self._factors, self._intercept = np.zeros(len(names)), weights, float(learner.intercept)
        for scaler in before:
            self._means = np.array([scaler.means.get(name, 0.0) for name in names], np.float64)
            if scaler.with_std:
                variances = np.array([scaler.vars.get(name, 0.0) for name in names], np.float64)
                scales = np.where(variances > 0, 1.0 / np.sqrt(np.where(variances > 0, variances, 1.0)), 0.0)
                self._factors = weights * scales

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        logits = (squashed(X) - self._means) @ self._factors + self._intercept
        with np.errstate(over="ignore"):
            found = 1.0 / (1.0 + np.exp(-logits))
        return np.where(logits < -30.0, 0.0, np.where(logits > 30.0, 1.0, found))  # as river.utils.math.sigmoid cuts


class Sessions:
    """The scorers of one process, by digest. Opening one takes 5 to 50 ms and happens when a version is registered,
    ahead of need. Whoever serves keeps the `Member`; here only the newest `KEPT` are remembered."""

    def __init__(self, artefacts: Artefacts, meters: Meters) -> None:
        self._artefacts, self._meters = artefacts, meters
        self._open: collections.OrderedDict[tuple[str, tuple[str, ...]], Scorer] = collections.OrderedDict()
        self._told: set[tuple[str, str]] = set()
        self._on_duty: dict[str, dict[str, str]] = {}
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
        """Say who is on duty, version by duty, once a change, however many shards follow it."""
        before = self._on_duty.get(model, {})
        if duties == before:
            return
        self._on_duty[model] = duties
        for name, version in before.items() - duties.items():
            self._meters.serving.remove(model, name, version)
        for name, version in duties.items():
            self._meters.serving.labels(model, name, version).set(1)
        lasting = {name: duties.get(name, "none") for name in ALIASES if name != "online"}
        if lasting != {name: before.get(name, "none") for name in lasting}:  # snapshots come all day: no line
            self._logger.info("on duty", model=model, **lasting)

    def _scorer(self, candidate: Candidate) -> Scorer:
        key = (candidate.artefact.sha256, tuple(candidate.inputs))
        if key not in self._open:
            self._open[key] = self._opened(candidate)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def _opened(self, candidate: Candidate) -> Scorer:
        kind, names = candidate.artefact.format, candidate.inputs
        if kind not in ("onnx", "river"):
            raise PenstockError(f"its format {kind!r} is not onnx or river", "register it again")
        data = self._artefacts.get(candidate.artefact)
        try:
            scorer = OnnxScorer(data, len(names)) if kind == "onnx" else RiverScorer(load_river(data), names)
            for rows in (8, 1):  # the first run is slow, and may fail: it happens here
                found = scorer.score(np.zeros((rows, len(names)), np.float32))
                if found.shape != (rows,) or not ((found >= 0) & (found <= 1)).all():
                    raise PenstockError("it does not answer with one probability a row", "fit it again")
        except PenstockError:
            raise
        except Exception as error:  # a runtime's own errors: whatever they are, the version cannot be served
            first = str(error).strip().partition("\n")[0][:300]
            raise PenstockError(f"it does not run: {type(error).__name__}: {first}", "fit it again") from None
        return scorer


def _columns(wanted: Sequence[str], inputs: Sequence[str]) -> tuple[int, ...] | None:
    if list(wanted) == list(inputs):
        return None
    missing = [name for name in wanted if name not in inputs]
    if missing:
        raise PenstockError(f"it was fitted on {missing[0]}, which the project no longer has", "refit it on this project")
    return tuple(inputs.index(name) for name in wanted)
