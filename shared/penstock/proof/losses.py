"""How good answers that are numbers or classes were, in the loss of their label, beside the first model unchanged and the prior.

The audit computes it from the topics alone, row by row; monitoring has sums instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..duration import DAY
from ..event import to_micros
from ..label import Label
from ..records import Decision, Outcome
from ..records.answers import served
from ..statistics.loss import CLIP

__all__ = ["losses"]

Floats = npt.NDArray[np.float64]
LEAST = 30
"""Labels below which there is no prior, as in monitoring."""


def losses(
    label: Label, outcomes: Sequence[Outcome], judged: Sequence[Outcome], first: Decision, scorer: Callable[..., Floats] | None
) -> dict[str, float]:
    """Mean loss of what was `served` to the judged outcomes, of the `first_model`, and of the `prior`: what the labels of the
    seven days before each event say, as far as they were known then. The prior is judged where there is one."""
    truth = _truths(label, judged)
    found = {"served": float(_loss(label, truth, _served(label, judged)).mean())}
    if scorer is not None and first.candidate is not None:
        rows = [[np.nan if v is None else v for v in msgspec.json.decode(o.inputs).values()] for o in judged]
        said = scorer(first, np.array(rows, np.float32))
        if label.classes:
            at = {name: column for column, name in enumerate(first.candidate.classes)}
            said = np.stack([said[:, at[name]] if name in at else np.zeros(len(said)) for name in label.classes], axis=1)
        found["first_model"] = float(_loss(label, truth, said).mean())
    guessed, known = _prior(label, outcomes, judged)
    if known.any():
        found["prior"] = float(_loss(label, truth[known], guessed[known]).mean())
    return found


def _truths(label: Label, outcomes: Sequence[Outcome]) -> npt.NDArray[Any]:
    if label.classes:
        at = {name: number for number, name in enumerate(label.classes)}
        return np.array([at[str(o.truth)] for o in outcomes], np.int64)
    return np.array([o.truth for o in outcomes], np.float64)


def _served(label: Label, judged: Sequence[Outcome]) -> Floats:
    if not label.classes:
        return np.array([o.score for o in judged], np.float64)
    said = [served(o.probabilities, o.version) if isinstance(o.probabilities, dict) else {} for o in judged]
    return np.array([[shares.get(name, 0.0) for name in label.classes] for shares in said], np.float64)


def _loss(label: Label, truth: npt.NDArray[Any], said: Floats) -> Floats:
    if label.classes:
        return np.asarray(-np.log(np.clip(said[np.arange(len(said)), truth], CLIP, 1 - CLIP)))
    miss = truth - said
    q = label.quantile
    return np.asarray(miss**2 if q is None else np.maximum(q * miss, (q - 1) * miss))


def _prior(label: Label, outcomes: Sequence[Outcome], judged: Sequence[Outcome]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What the prior says to each judged outcome, and whether it says anything."""
    ordered = sorted(outcomes, key=lambda o: (o.labelled, o.id))
    when, truth = np.array([to_micros(o.labelled) for o in ordered]), _truths(label, ordered)
    asked = np.array([to_micros(o.time) for o in judged])
    low, high = np.searchsorted(when, asked - 7 * DAY), np.searchsorted(when, asked)
    n = np.maximum(high - low, 1)
    if label.quantile is not None:
        spans = np.unique(np.stack([low, high], axis=1), axis=0)
        said = {(a, b): np.quantile(truth[a:b], label.quantile) if b > a else 0.0 for a, b in spans.tolist()}
        return np.array([said[a, b] for a, b in zip(low.tolist(), high.tolist(), strict=True)]), high - low >= LEAST
    each = np.eye(len(label.classes))[truth] if label.classes else truth[:, None]
    total = np.concatenate([np.zeros((1, each.shape[1])), np.cumsum(each, axis=0)])
    mean = (total[high] - total[low]) / n[:, None]
    return (mean if label.classes else mean[:, 0]), high - low >= LEAST
