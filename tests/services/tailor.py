"""Flights of `air`, asked about with functions (`seams`) around the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from tests.services.air import LABEL, START, Flight, Origin, long
from tests.services.seams import centre, cut, double, hold, short

import penstock as ps
from penstock.artefact import Artefacts
from penstock.label import Label
from penstock.model import Model
from penstock.project import Project
from penstock.records import Candidate, Code, Decision
from penstock.scoring.around import Around, Functions, Plan
from penstock.services.trainer.fitting import fit

Floats = npt.NDArray[np.float64]


@ps.model(
    scores=Flight,
    features=[Origin, Flight.distance, Flight.night, Flight.seats],
    label=LABEL,
    before=cut,
    after=hold,
    explain=1.0,
)
def late() -> ps.Learner:
    return ps.Learner(batch=HistGradientBoostingClassifier(max_iter=8))


PROJECT = ps.Project("air", [late, long])
OTHERS: Final = (short, double, centre)
"""Functions of this file that no model declares, as one leaves them there that versions were fitted with."""


def rows(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Inputs of `late`, some of them missing."""
    drawn = np.random.default_rng(seed)
    found = (drawn.normal(size=(n, 5)) * 100).astype(np.float32)
    found[:, 3] = drawn.random(n) < 0.5
    found[drawn.random(found.shape) < 0.1] = np.nan
    found[:, 2:4] = np.nan_to_num(found[:, 2:4])
    return found


class Tailor:
    """A learner fitted with the functions, registered as the trainer does; and what it answers, by plain calls."""

    def __init__(self, folder: Path) -> None:
        self.artefacts = Artefacts(folder)
        self.learner = HistGradientBoostingClassifier(max_iter=30, learning_rate=0.3)
        functions = Functions(Plan.of(late))
        around = functions.declared() or Around()
        seen = rows(500)
        labels = np.nan_to_num(seen[:, 2]) > np.random.default_rng(1).normal(size=500) * 50
        made = fit(self.learner, "late", late.inputs, seen, labels, around=around)
        self.stored, self.codes, self.metrics = self.artefacts.put(made.onnx, "onnx"), around.codes, made.metrics
        functions.close()

    def decision(self, codes: dict[str, Code] | None = None, version: str = "v1", kind: str = "champion") -> Decision:
        candidate = Candidate(
            id=f"c-{version}", model="late", version=version, kind="full", at=START, artefact=self.stored,
            inputs=list(late.inputs), weights={}, edges={}, reference={}, metrics={}, run="r", fingerprint="f",
            functions=self.codes if codes is None else codes,
        )  # fmt: skip
        return Decision(
            id=f"{kind}-{version}", model="late", kind=kind, version=version, at=START, actor="registry", reason="", share=1.0,
            expected="", evidence={}, candidate=candidate,
        )  # fmt: skip

    def answer(self, rows: npt.NDArray[np.float32]) -> Floats:
        """By the learner itself, its functions called in this process."""
        wide = rows.astype(np.float64)
        seen = cut(rows, wide[:, 2], wide[:, 3])["X"]
        found: Floats = hold(self.learner.predict_proba(seen)[:, 1], wide[:, 3])["score"]
        return found


def other(**changes: Any) -> Project:
    """The project with another model of that name."""
    label: Label = LABEL
    changed: Model = replace(late, label=label, **changes)
    return ps.Project("air", [changed, long])
