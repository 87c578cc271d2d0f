"""Measures of yes/no answers, from the sums of a window alone, each with its 95 % interval. Shares and the area hold the truth
about as often at any size; the others from some 20 outcomes on, as before the spread seen is less than there is.

A Quality counts the scores of true and of false outcomes in 200 steps, so every confusion matrix at a threshold on a step, and
every curve over thresholds, is exact up to the order of scores within one step. Sums of windows and partitions add, and then
these hold for all of them together.

    auc                 DeLong, DeLong and Clarke-Pearson 1988, from the counts (ties half); at each end that or Newcombe 2006
                        (method 5), whichever is wider: the former sees no spread in one or two outcomes of a kind
    average_precision   sum of precision times the gain in recall, from the highest score down
    log_loss, brier     the exact means; their errors from the counts at the middle of each step
    accuracy, precision, recall, specificity    Wilson 1927
    f1, f2              harmonic means of precision and recall, recall counted once or twice
    kappa               Cohen 1960: agreement beyond that of chance with the same margins
    kappa_temporal      Zliobaite et al. 2015: beyond that of saying what was true last, here the usual label of the window
                        before, as the order of single outcomes differs between partitions
    calibration_error   mean distance between score and rate over 20 bands of scores (Naeini et al. 2015); chance alone keeps
                        it above 0 in small windows
    value               worth of an answer, see `penstock.value`

Where no formula is at hand the interval is that of 200 multinomial draws with a fixed seed, of the confusion matrix or of the
counts in the 20 bands: the same sums give the same bits. Nothing is ever not a number: what says nothing of a window is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from ..records import Measure, Paired, Quality
from ..value import Value
from .loss import CLIP, clipped, log_loss, log_losses
from .quality import BINS, added, area, place_of, prior_loss

__all__ = ["against", "answering", "averaged_precision", "calibrated", "confusion", "delong", "measured", "wilson"]

Floats = npt.NDArray[np.float64]

Z: Final = 1.959963984540054
DRAWS: Final = 200
BANDS: Final = 20
MIDDLES: Final = np.clip((np.arange(BINS) + 0.5) / BINS, CLIP, 1 - CLIP)


def measured(
    quality: Quality, threshold: float = 0.5, value: Value | None = None, last: bool | None = None
) -> dict[str, Measure]:
    """The measures of one version; those that need both kinds of outcomes are absent without. Nothing at all is said where
    corrections took back more than the window holds. `threshold`: from which score on an answer says yes (a multiple of 0.005;
    that of `value` where there is one). `last`: the usual label of the window before.

    >>> found = measured(Quality(n=4, positives=2, bins_true=[0] * 199 + [2], bins_false=[2] + [0] * 199))
    >>> found["auc"].value, found["accuracy"].value, round(found["accuracy"].low, 2)
    (1.0, 1.0, 0.51)
    """
    counts = _counts(quality)
    if counts is None:
        return {}
    threshold = value.above if value else threshold
    cells = confusion(quality, threshold)
    found = {**_losses(quality, counts), **_decided(cells, last), **_curves(quality, counts)}
    if value is not None:
        found["value"] = _worth(cells, value)
    return {name: found[name] for name in sorted(found)}


def confusion(quality: Quality, threshold: float = 0.5) -> tuple[int, int, int, int]:
    """True positives, false positives, true negatives, false negatives when an answer says yes from `threshold` on.

    >>> confusion(Quality(bins_true=[1] + [0] * 198 + [2], bins_false=[4] + [0] * 198 + [3]))
    (2, 3, 4, 1)
    """
    cut = round(threshold * BINS)
    true, false = quality.bins_true, quality.bins_false
    return sum(true[cut:]), sum(false[cut:]), sum(false[:cut]), sum(true[:cut])


def answering(rate: float, quality: Quality) -> Quality:
    """The sums that answering always with `rate` would have had on the same outcomes: a baseline."""
    rate, negatives = clipped(rate), quality.n - quality.positives
    place = place_of(rate)
    return Quality(
        n=quality.n,
        positives=quality.positives,
        loss=prior_loss(rate, quality.n, quality.positives),
        squares=quality.positives * (1 - rate) ** 2 + negatives * rate**2,
        bins_true=[quality.positives if at == place else 0 for at in range(BINS)],
        bins_false=[negatives if at == place else 0 for at in range(BINS)],
    )


def against(quality: Quality, rate: float) -> Paired:
    """What was answered minus answering always with `rate`, in log loss on the same outcomes; the squares from the counts at the
    middle of each step. Nothing where corrections took back more than there is."""
    counts = _counts(quality)
    if counts is None:
        return Paired()
    losses = np.stack([log_losses(np.full(BINS, label), MIDDLES) for label in (False, True)])
    theirs = np.array([[log_loss(rate, False)], [log_loss(rate, True)]])
    squares = float((counts * (losses - theirs) ** 2).sum())
    return Paired(n=quality.n, sum=quality.loss - prior_loss(rate, quality.n, quality.positives), squares=squares)


def wilson(hits: int, n: int) -> Measure | None:
    """A share with its 95 % interval (Wilson 1927); None of nothing.

    >>> share = wilson(0, 10)
    >>> share.value, share.low, round(share.high, 3)
    (0.0, 0.0, 0.278)
    """
    if n <= 0:
        return None
    p, z2 = hits / n, Z * Z / n
    middle, half = (p + z2 / 2) / (1 + z2), Z * sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return Measure(value=p, low=0.0 if not hits else max(middle - half, 0.0), high=1.0 if hits == n else min(middle + half, 1.0))


def _counts(quality: Quality) -> npt.NDArray[np.int64] | None:
    """(2, BINS): false and true outcomes by score; None where there is nothing, or less than nothing."""
    zeros = [0] * BINS
    found = np.array([added(zeros, quality.bins_false), added(zeros, quality.bins_true)], np.int64)
    return found if found.min() >= 0 and found.sum() > 0 else None


def _curves(quality: Quality, counts: npt.NDArray[np.int64]) -> dict[str, Measure]:
    """What needs the scores: calibration error, and with both kinds area under the curve and average precision."""
    found = {"calibration_error": _calibrated(counts)}
    auc = area(quality)
    if auc is None:
        return found
    return found | {"auc": _delong(auc, *counts[::-1].astype(np.float64)), "average_precision": averaged_precision(counts)}


def averaged_precision(counts: npt.NDArray[np.int64]) -> Measure:
    """Average precision of outcomes counted by score: (2, a multiple of BANDS), false and true, some of each."""
    draws = _draws(_banded(counts))
    exact, rough = (float(_average_precision(cells[None])[0]) for cells in (counts, _banded(counts)))
    return _drawn(exact, np.clip(_average_precision(draws) + (exact - rough), 0.0, 1.0))


def calibrated(quality: Quality) -> Measure | None:
    """The calibration error alone."""
    counts = _counts(quality)
    return None if counts is None else _calibrated(counts)


def _calibrated(counts: npt.NDArray[np.int64]) -> Measure:
    banded = _banded(counts)
    means = (counts.sum(axis=0) * MIDDLES).reshape(BANDS, -1).sum(axis=1) / np.maximum(banded.sum(axis=0), 1)
    return _drawn(float(_calibration(banded[None], means)[0]), _calibration(_draws(banded), means))


def delong(true: Floats, false: Floats) -> Measure | None:
    """The area under the curve of outcomes counted by score, in equal bins; None where there is none (see `area`)."""
    value = area(Quality(bins_true=true.astype(int).tolist(), bins_false=false.astype(int).tolist()))
    return None if value is None else _delong(value, true, false)


def _delong(auc: float, true: Floats, false: Floats) -> Measure:
    n, m = float(true.sum()), float(false.sum())
    above = (np.cumsum(false) - false / 2) / m  # of a true outcome in each step: the share of false ones below it
    below = (n - np.cumsum(true) + true / 2) / n
    spread = sum(
        float(weights @ (part - auc) ** 2) / max(size - 1, 1) / size
        for weights, part, size in ((true, above, n), (false, below, m))
    )
    half = Z * sqrt(spread) if spread else 3.0 / min(n, m)  # all in order: the rule of three of the rarer kind
    low, high = _newcombe(auc, n, m)
    return Measure(value=auc, low=max(min(auc - half, low), 0.0), high=min(max(auc + half, high), 1.0))


def _newcombe(auc: float, n: float, m: float) -> tuple[float, float]:
    """The areas from which `auc` is Z standard errors away, these as of exponential scores (Hanley and McNeil 1982), their sizes
    evened out (Newcombe 2006, method 5). By bisection."""
    even = (n + m) / 2 - 1

    def beyond(area: float) -> bool:
        square = area * (1 - area) / (n * m) * (1 + even * (1 - area) / (2 - area) + even * area / (1 + area))
        return (auc - area) ** 2 > Z * Z * square

    found = []
    for outer in (0.0, 1.0):
        inner = auc
        for _ in range(40):
            middle = (outer + inner) / 2
            outer, inner = (middle, inner) if beyond(middle) else (outer, middle)
        found.append(outer)
    return found[0], found[1]


def _draws(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(DRAWS, ...): as many outcomes again and again, spread by chance as they were."""
    n = int(counts.sum())
    return np.random.default_rng(0).multinomial(n, (counts / n).ravel(), DRAWS).reshape(DRAWS, *counts.shape)


def _banded(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    banded: npt.NDArray[np.int64] = counts.reshape(2, BANDS, -1).sum(axis=2)
    return banded


def _losses(quality: Quality, counts: npt.NDArray[np.int64]) -> dict[str, Measure]:
    """Log loss and Brier score: the exact means."""
    n = int(counts.sum())
    wrong = np.stack([MIDDLES, 1 - MIDDLES])
    losses = np.stack([log_losses(np.full(BINS, label), MIDDLES) for label in (False, True)])
    return {
        name: _normal(total / n, counts, costs)
        for name, total, costs in (("brier", quality.squares, wrong**2), ("log_loss", quality.loss, losses))
        if total >= 0
    }


def _decided(cells: tuple[int, int, int, int], last: bool | None) -> dict[str, Measure]:
    """What a confusion matrix says."""
    tp, fp, tn, fn = cells
    shares = {
        "accuracy": wilson(tp + tn, tp + fp + tn + fn),
        "precision": wilson(tp, tp + fp),
        "recall": wilson(tp, tp + fn),
        "specificity": wilson(tn, tn + fp),
    }
    found = {name: share for name, share in shares.items() if share is not None}
    once = np.array(cells, np.int64)
    drawn = _draws(once).T
    measures: dict[str, Callable[[npt.NDArray[np.int64]], Floats]] = {"f1": _f(1.0), "f2": _f(2.0), "kappa": _kappa}
    if last is not None:
        measures["kappa_temporal"] = partial(_beyond, last=last)
    for name, of in measures.items():
        value = float(of(once[:, None])[0])
        if np.isfinite(value):
            found[name] = _drawn(value, of(drawn))
    return found


def _f(beta: float) -> Callable[[npt.NDArray[np.int64]], Floats]:
    def of(cells: npt.NDArray[np.int64]) -> Floats:
        tp, fp, _, fn = cells.astype(np.float64)
        with np.errstate(invalid="ignore"):
            found: Floats = (1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp)
        return found

    return of


def _kappa(cells: npt.NDArray[np.int64]) -> Floats:
    tp, fp, tn, fn = cells.astype(np.float64)
    n = tp + fp + tn + fn
    chance = ((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = ((tp + tn) / n - chance) / (1 - chance)
    return np.where(chance < 1, found, np.nan)


def _beyond(cells: npt.NDArray[np.int64], last: bool) -> Floats:
    """Agreement beyond that of saying `last` of everything."""
    tp, fp, tn, fn = cells.astype(np.float64)
    n = tp + fp + tn + fn
    plain = (tp + fn if last else tn + fp) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = ((tp + tn) / n - plain) / (1 - plain)
    return np.where(plain < 1, found, np.nan)


def _average_precision(cells: npt.NDArray[np.int64]) -> Floats:
    false, true = cells[:, 0, ::-1].astype(np.float64), cells[:, 1, ::-1].astype(np.float64)
    hits, said = np.cumsum(true, axis=1), np.cumsum(true + false, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (np.where(said > 0, hits / said, 0.0) * true).sum(axis=1) / hits[:, -1]
    return found


def _calibration(cells: npt.NDArray[np.int64], means: Floats) -> Floats:
    """`means`: the mean score of each band."""
    found: Floats = np.abs(cells.sum(axis=1) * means - cells[:, 1]).sum(axis=1) / cells.sum(axis=(1, 2))
    return found


def _worth(cells: tuple[int, int, int, int], value: Value) -> Measure:
    """Mean worth of an answer."""
    worth = np.array([value.true_positive, value.false_positive, value.true_negative, value.false_negative])
    counts = np.array(cells)
    return _normal(float(counts @ worth) / sum(cells), counts, worth)


def _normal(mean: float, counts: npt.NDArray[np.int64], costs: Floats) -> Measure:
    """A mean of costs per cell, with the interval of its standard error, which ends at the least and the greatest cost."""
    n = int(counts.sum())
    rough = float((counts * costs).sum() / n)
    half = Z * sqrt(float((counts * (costs - rough) ** 2).sum()) / n / n)
    low, high = min(float(costs.min()), mean), max(float(costs.max()), mean)
    return Measure(value=mean, low=max(mean - half, low), high=min(mean + half, high))


def _drawn(value: float, draws: Floats) -> Measure:
    """A value with the middle 95 % of its draws, which hold it."""
    known = draws[np.isfinite(draws)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (value, value)
    return Measure(value=float(value), low=float(min(low, value)), high=float(max(high, value)))
