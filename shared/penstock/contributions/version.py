"""What explains a version that was registered, and one of its answers as a record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np

from ..artefact import Artefacts
from ..errors import PenstockError
from ..inputs import Floats, Matrix
from ..records import Candidate
from ..scoring.around import NOTHING, Functions, Plan, Unanswered
from ..scoring.scorers import opened as scorer_of
from ..snapshot import load_river
from .classes import Classes
from .explainer import LOG_ODDS, Explainer, Score, opened
from .linear import Squashed

__all__ = ["Contribution", "Explanation", "explained", "explainer_of"]


class Contribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one input did to an answer, on the scale of its explanation."""

    input: str
    value: float | None
    """Null where it is missing."""
    contribution: float
    error: float = 0.0
    """Its standard error; 0 (not written) where it is exact."""


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version's answer, taken apart: `base` and the contributions add up to `total`. The largest come first."""

    version: str
    kind: str
    scale: str
    base: float
    """The mean answer over a sample of what it was fitted on; of a snapshot, the answer to the mean of what it was taught."""
    total: float
    probability: float
    """Of a model that answers with a number: the number; of one that names a class, the probability of `answer`."""
    contributions: list[Contribution]
    answer: str = ""
    """The class that is explained, of a model that names one."""


def explainer_of(
    artefacts: Artefacts, candidate: Candidate, score: Score | None = None, plan: Plan = NOTHING
) -> Explainer | Classes:
    """What explains the answers of a version, over `candidate.inputs`. `score` is its own where it is open already, else
    it is opened, with the functions of `plan` around it.

    Unreachable when its file cannot be read now; PenstockError where it has none, or it is not what the record says.
    """
    if candidate.artefact.format == "river":
        if candidate.functions:
            raise PenstockError(
                f"{candidate.version} is a snapshot with functions around it, which is not explained", "ask a fit"
            )
        return Squashed(load_river(artefacts.get(candidate.artefact)), candidate.inputs)
    if candidate.explainer is None:
        raise PenstockError(
            f"version {candidate.version} of {candidate.model} was fitted without an explainer",
            "versions that are fitted from now on have one",
        )
    return opened(artefacts.get(candidate.explainer), score or _asked(artefacts, candidate, plan))


def explained(
    explainer: Explainer | Classes,
    version: str,
    inputs: Sequence[str],
    row: Sequence[float | None],
    classes: Sequence[str] = (),
    answer: str = "",
) -> Explanation:
    """The answer of a version to one row, values in the order of `inputs`. Where it names one of `classes`, in the order of its
    columns, what is explained is the class `answer`; if it does not know that, or none is given, its own most probable one.

    PenstockError where it gives no answer to rows that have to be asked for it."""
    matrix = np.array([[math.nan if value is None else value for value in row]], np.float32)
    if isinstance(explainer, Classes):
        shares = explainer.probabilities(matrix)[0]
        at = classes.index(answer) if answer in classes else int(shares.argmax())
        found = explained(explainer.of(at), version, inputs, row)
        return msgspec.structs.replace(found, probability=float(shares[at]), answer=classes[at])
    values, errors = explainer.explained(matrix)
    if not np.isfinite(values).all() or not math.isfinite(explainer.base):
        raise PenstockError(
            f"{version} gives no answer to some mixes of this row and of those that it was fitted on, so it is not explained",
            "let the functions around the model take any values of its inputs",
        )
    total = float(explainer.base + values.sum())
    parts = [
        Contribution(name, value, *both)
        for name, value, *both in zip(inputs, row, values[0].tolist(), errors[0].tolist(), strict=True)
    ]
    probability = 1.0 / (1.0 + math.exp(-max(-700.0, min(total, 700.0)))) if explainer.scale == LOG_ODDS else total
    parts.sort(key=lambda part: (-abs(part.contribution), part.input))
    return Explanation(version, explainer.kind, explainer.scale, explainer.base, total, probability, parts)


def _asked(artefacts: Artefacts, candidate: Candidate, plan: Plan) -> Score:
    """The version's own probabilities; it is opened when it is first asked."""
    scorer = cache(lambda: scorer_of(artefacts, candidate, Functions(plan)))

    def score(rows: Matrix) -> Floats:
        try:
            return scorer().score(rows)
        except Unanswered as error:  # of a mix of rows that functions do not take
            return error.found

    return score
