"""Answers that name one of several classes: counts that add over partitions and windows, and the measures that follow from them.

    accuracy                 Wilson 1927
    kappa                    Cohen 1960; kappa_temporal beyond that of saying what was usual in the window before
    macro_f1, weighted_f1    mean over the classes that occur as truth or answer; weighted by how often each was true
    log_loss                 the exact mean
    brier                    mean of the squared errors summed over the classes (Brier 1950); the interval is as wide as if
                             those of all classes rose together
    average_precision        mean over the classes of each against the rest, from 40 bins, as below
    auc                      mean over the classes of each against the rest, from 40 bins of its probability; the interval is the
                             mean of theirs (DeLong 1988), which is as wide as if all of them erred together
    calibration_error        mean distance between the probability of the class that was named and how often it was true

Intervals without a name are normal, by the delta method from the multinomial's own covariance.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ..records import Confusion, Measure, Paired, Quality
from .binary import averaged_precision, calibrated, delong, wilson
from .loss import clipped
from .quality import BINS, GRAIN, Sums, place_of

__all__ = [
    "CLASS_BINS",
    "against",
    "alike",
    "cells",
    "counted",
    "counted_classes",
    "empty",
    "mean_class_loss",
    "measured_classes",
    "measured_quality",
    "rated",
    "spread",
]

CLASS_BINS = 40
Counts = npt.NDArray[np.int64]
Z = 1.959963984540054


def counted(sums: Sums, said: Sequence[float], truth: int, sign: int = 1) -> float:
    """Count one answer in place: `said` is the probability of each class, `truth` the number of the one that was true. Returns
    its log loss in nats, on the grain (see quality.py). Of equal probabilities the first class is the one that is named."""
    k, confusion = len(said), sums.confusion
    assert isinstance(confusion, Confusion)
    if len(confusion.cells) != k * k:  # saved before the classes were declared anew: what was counted is of others
        begun = empty(k)
        for field in begun.__struct_fields__:
            setattr(sums, field, getattr(begun, field))
        confusion = begun.confusion
        assert isinstance(confusion, Confusion)
    answer, loss = rated(sums, said, truth, sign)
    confusion.cells[truth * k + answer] += sign
    for at, p in enumerate(said):
        (confusion.true if at == truth else confusion.false)[at * CLASS_BINS + min(int(p * CLASS_BINS), CLASS_BINS - 1)] += sign
    return loss


def rated(sums: Sums, said: Sequence[float], truth: int, sign: int = 1) -> tuple[int, float]:
    """Count one answer by whether it was right alone, not by classes; returns the number of the class that it named, and its
    loss."""
    from math import log

    answer = max(range(len(said)), key=said.__getitem__)
    loss = round(-log(clipped(said[truth])) * GRAIN) / GRAIN
    sums.n += sign
    sums.positives += sign * (answer == truth)
    sums.loss += sign * loss
    sums.squares += sign * (round(sum((p - (at == truth)) ** 2 for at, p in enumerate(said)) * GRAIN) / GRAIN)
    (sums.bins_true if answer == truth else sums.bins_false)[place_of(said[answer])] += sign
    known = sums.confusion if isinstance(sums.confusion, Confusion) else Confusion()
    squares = known.loss_squares + sign * (round(loss * loss * GRAIN) / GRAIN)
    sums.confusion = msgspec.structs.replace(known, loss_squares=squares)  # with the same lists
    return answer, loss


def spread(sums: Sums, said: Sequence[float], loss: float, sign: int = 1) -> None:
    """Add the loss of an answer that was counted by the probability of the class that was named, in place."""
    confusion = sums.confusion
    assert isinstance(confusion, Confusion)
    if not confusion.losses:
        confusion.losses.extend([0.0] * BINS)
    confusion.losses[place_of(max(said))] += sign * loss


def empty(classes: int) -> Sums:
    """Nothing counted yet."""
    width = classes * CLASS_BINS
    return Sums(confusion=Confusion(cells=[0] * classes**2, true=[0] * width, false=[0] * width))


def alike(quality: Quality, shares: Sequence[float]) -> Quality:
    """The sums that giving always the same probabilities would have had on the same outcomes: a baseline."""
    k = len(shares)
    sums = empty(k)
    for truth, n in enumerate(truths(quality, k)):
        counted(sums, shares, truth, n)
    return sums.frozen()


def against(quality: Quality, shares: Sequence[float]) -> Paired:
    """What was answered minus giving always the same probabilities, in log loss on the same outcomes. The squares are exact but
    for how the loss falls to the classes, which follows from the counts at the middle of each bin."""
    k, confusion = len(shares), quality.confusion
    counts = truths(quality, k)
    if not isinstance(confusion, Confusion) or quality.n <= 0 or min(counts) < 0 or sum(counts) != quality.n:
        return Paired()
    middles = (np.arange(CLASS_BINS) + 0.5) / CLASS_BINS
    ours = np.array(confusion.true, np.float64).reshape(k, CLASS_BINS) @ -np.log(middles)
    ours *= quality.loss / ours.sum() if ours.sum() > 0 else 0.0
    theirs = -np.log([clipped(share) for share in shares])
    squares = confusion.loss_squares - 2 * float(ours @ theirs) + float(np.array(counts) @ theirs**2)
    total = quality.loss - float(np.array(counts) @ theirs)
    return Paired(n=quality.n, sum=total, squares=max(squares, total * total / quality.n))


def truths(quality: Quality, classes: int) -> list[int]:
    """How often each class was true; none was in counts of other classes."""
    found = cells(quality)
    if len(found) != classes**2:
        return [0] * classes
    return [sum(found[at * classes : (at + 1) * classes]) for at in range(classes)]


def cells(quality: Quality) -> list[int]:
    """Its confusion matrix, truth by truth; empty where there is none."""
    return quality.confusion.cells if isinstance(quality.confusion, Confusion) else []


def measured_quality(quality: Quality, classes: int, last: int | None = None) -> dict[str, Measure]:
    """All measures of one version; nothing where there is nothing, or corrections took back more than there is. Without counts of
    pairs of classes (of a group) those that need none. `last`: the number of the class that was usual in the window before."""
    confusion = quality.confusion
    if not isinstance(confusion, Confusion) or quality.n <= 0:
        return {}
    if not confusion.cells:
        hits = wilson(quality.positives, quality.n) if 0 <= quality.positives <= quality.n and quality.loss >= 0 else None
        return {"accuracy": hits, **_losses(quality, confusion)} if hits else {}
    if len(confusion.cells) != classes**2:
        return {}
    counts = np.array(confusion.cells, np.int64).reshape(classes, classes)
    found = measured_classes(counts, last)
    if not found or quality.loss < 0:
        return {}
    found |= _losses(quality, confusion)
    if quality.squares >= 0:
        found["brier"] = _brier(quality, confusion)
    sides = [np.array(side, np.int64).reshape(classes, -1) for side in (confusion.false, confusion.true)]
    each = [by for by in np.stack(sides, axis=1) if by.min() >= 0 and by.sum(axis=1).min() > 0]  # (false and true, bins)
    areas = [area for by in each if (area := delong(by[1].astype(np.float64), by[0].astype(np.float64))) is not None]
    if areas:
        found["auc"] = _mean_of(areas)
    if each:
        found["average_precision"] = _mean_of([averaged_precision(by) for by in each])
    return dict(sorted(found.items()))


def _losses(quality: Quality, confusion: Confusion) -> dict[str, Measure]:
    n = quality.n
    mean = quality.loss / n
    half = Z * float(np.sqrt(max(confusion.loss_squares / n - mean**2, 0.0) / n))
    found = {"log_loss": Measure(value=mean, low=max(mean - half, 0.0), high=mean + half)}
    return found if (error := calibrated(quality)) is None else {"calibration_error": error, **found}


def _mean_of(measures: Sequence[Measure]) -> Measure:
    value, low, high = np.mean([(each.value, each.low, each.high) for each in measures], axis=0).tolist()
    return Measure(value=value, low=low, high=high)


def _brier(quality: Quality, confusion: Confusion) -> Measure:
    """The exact mean; its spread from the counts at the middle of each bin."""
    n, mean = quality.n, quality.squares / quality.n
    middles = (np.arange(CLASS_BINS) + 0.5) / CLASS_BINS
    costs = np.stack([middles**2, (1 - middles) ** 2])
    sides = [np.array(side, np.float64).reshape(-1, CLASS_BINS) for side in (confusion.false, confusion.true)]
    counts = np.stack(sides, axis=1)  # (classes, false and true, bins)
    means, squares = ((counts * power).sum(axis=(1, 2)) / n for power in (costs, costs**2))
    half = Z * float(np.sqrt(np.maximum(squares - means**2, 0.0) / n).sum())
    return Measure(value=mean, low=max(mean - half, 0.0), high=min(mean + half, 2.0))


def counted_classes(truth: Sequence[int], answer: Sequence[int], classes: int) -> Counts:
    """The confusion matrix of class numbers, (classes, classes) int64: rows are truths, columns answers. Matrices add.

    >>> counted_classes([0, 1, 1], [0, 1, 0], 2).tolist()
    [[1, 0], [1, 1]]
    """
    cells = np.asarray(truth, np.int64) * classes + np.asarray(answer, np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def measured_classes(counts: Counts, last: int | None = None) -> dict[str, Measure]:
    """What a confusion matrix says. Nothing of nothing.

    >>> {name: found.value for name, found in measured_classes(np.array([[3, 0], [0, 2]])).items()}
    {'accuracy': 1.0, 'kappa': 1.0, 'macro_f1': 1.0, 'weighted_f1': 1.0}
    """
    n = int(counts.sum())
    hits = wilson(int(np.trace(counts)), n)
    if hits is None or counts.min() < 0:
        return {}
    p, rows, columns = counts / n, counts.sum(axis=1) / n, counts.sum(axis=0) / n
    right, chance = float(np.trace(p)), float(rows @ columns)
    found = {"accuracy": hits}
    eye = np.eye(len(counts))
    if chance < 1:
        kappa = (right - chance) / (1 - chance)
        slope = (eye * (1 - chance) - (1 - right) * (columns[:, None] + rows[None, :])) / (1 - chance) ** 2
        found["kappa"] = _delta(kappa, slope, p, n)
    if last is not None and (plain := float(rows[last])) < 1:
        usual = np.zeros_like(p)
        usual[last] = 1.0
        slope = (eye * (1 - plain) - (1 - right) * usual) / (1 - plain) ** 2
        found["kappa_temporal"] = _delta((right - plain) / (1 - plain), slope, p, n)
    margins = rows + columns
    there = margins > 0
    inverse = np.where(there, 1 / np.where(there, margins, 1), 0.0)
    each = 2 * np.diag(p) * inverse
    slopes = 2 * eye * inverse[:, None] - (each * inverse)[:, None] - (each * inverse)[None, :]
    found["macro_f1"] = _delta(float(each[there].mean()), slopes / there.sum(), p, n)
    weighted = 2 * eye * (rows * inverse)[:, None] - (rows * each * inverse)[:, None] - (rows * each * inverse)[None, :]
    found["weighted_f1"] = _delta(float(rows @ each), weighted + each[:, None], p, n)
    return found


def mean_class_loss(scores: npt.NDArray[np.float64], truth: Sequence[int]) -> float:
    """Mean log loss in nats of probabilities (answers, classes), of which that of the truth counts, clipped as in loss.py.

    >>> round(mean_class_loss(np.array([[0.25, 0.5, 0.25]]), [1]), 6)
    0.693147
    """
    said = scores[np.arange(len(scores)), np.asarray(truth, np.int64)]
    return float(-np.mean(np.log([clipped(score) for score in said.tolist()])))


def _delta(value: float, slope: npt.NDArray[np.float64], p: npt.NDArray[np.float64], n: int) -> Measure:
    """The interval of a smooth function of multinomial shares: its slope in each share, to first order."""
    mean = float((slope * p).sum())
    half = Z * float(np.sqrt(max(float((slope**2 * p).sum()) - mean**2, 0.0) / n))
    return Measure(value=value, low=value - half, high=min(value + half, 1.0))
