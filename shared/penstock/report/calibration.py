"""Calibration: of the answers that say 30 %, are 30 % true?"""

from __future__ import annotations

from itertools import pairwise

from ..pages.drawing import Line, chart, histogram, key
from ..records import Measure, Quality
from ..statistics.binary import measured, wilson
from ..statistics.quality import BINS
from .quality import figure, interval
from .records import SERVED, Records
from .section import Block, Cards, Missing, Section, Table, Tone

__all__ = ["calibration"]

BANDS = 10
LEAST = 20
"""Outcomes from which on a band has a point in the picture."""


def calibration(records: Records) -> Section:
    """The share that was true, by what was said."""
    title, total = "Calibration", records.quality().get(SERVED, Quality())
    if total.n <= 0 or len(total.bins_true) != BINS or min(*total.bins_true, *total.bins_false) < 0:
        quantile = records.model.label.quantile
        if total.n > 0 and records.model.label.task == "regression" and quantile is None:
            how = "Answers are numbers, which are no probabilities: how far they are off on average is the bias, above."
            return Section("calibration", title, how)
        what = "no outcome that counts" if total.n <= 0 else "answers that are no probability of one thing"
        if total.n > 0 and quantile is not None:
            what = f"no count of the truths at or below their answer, which should be {quantile:.4g} of all"
        return Section(
            "calibration", title, f"Not known: the period has {what}.", [Missing("There is no curve to draw.")], "unknown"
        )
    many = bool(records.model.label.classes)
    whose, held = ("Probabilities of the class that was answered", "right") if many else ("Scores", "true")
    width = BINS // BANDS
    bands = []
    for at in range(BANDS):
        true, false = (sum(b[at * width : (at + 1) * width]) for b in (total.bins_true, total.bins_false))
        mean = _mean(total, at * width, (at + 1) * width)
        bands.append((at / BANDS, (at + 1) / BANDS, mean, true + false, wilson(true, true + false)))
    said, rate = _mean(total, 0, BINS), total.positives / total.n
    error = measured(total)["calibration_error"]
    lines = [
        Line(name="perfect", tone="prior", points=[(0.0, 0.0), (1.0, 1.0)]),
        Line(
            name="served",
            tone="now",
            points=[(mean, share.value) for _, _, mean, n, share in bands if share and n >= LEAST],
            band=[(mean, share.low, share.high) for _, _, mean, n, share in bands if share and n >= LEAST],
            dots=True,
        ),
    ]
    names = [(at / 4, f"{at / 4:.0%}") for at in range(5)]
    curve = chart(lines, f"Share that was {held}, by the score of the answers", (0.0, 1.0), names, within=(0.0, 1.0), square=True)
    counts = [a + b for a, b in zip(total.bins_true, total.bins_false, strict=True)]
    coarse = [sum(counts[at : at + 5]) for at in range(0, BINS, 5)]
    borders = [f"{at / len(coarse):.3g}" for at in range(len(coarse) + 1)]
    tall = histogram(coarse, borders, "How many answers had which score", "score")
    rows = [
        (f"{low:.0%} to {high:.0%}", f"{n:,}", f"{mean:.1%}", "–" if not share else f"{share.value:.1%}", _percents(share))
        for low, high, mean, n, share in bands
        if n
    ]
    off = said - rate
    tone: Tone = "good" if error.low < 0.02 and error.value < 0.03 else "warn" if error.value < 0.1 else "bad"
    way = (
        f"on average {100 * abs(off):.1f} points too {'high' if off > 0 else 'low'}" if abs(off) >= 0.001 else "right on average"
    )
    sentence = (
        f"{whose} are {way}: they say {said:.1%}, and {rate:.1%} were {held}; "
        f"calibration error {figure(error.value)} {interval(error)} on {total.n:,} outcomes."
    )
    blocks: list[Block] = [
        Cards(
            [
                (f"Share that was {held}, by score", curve + key([("now", "served"), ("prior", "perfect")])),
                ("Scores", tall),
            ]
        ),
        Table(
            ("score", "outcomes", "mean score", f"were {held}", "95 % interval"), rows, brief=BANDS, fold="The same in numbers"
        ),
    ]
    return Section("calibration", title, sentence, blocks, tone)


def _percents(share: Measure | None) -> str:
    return "" if share is None else f"{share.low:.1%} to {share.high:.1%}"


def _mean(quality: Quality, low: int, high: int) -> float:
    """The mean score of some steps, each taken at its middle."""
    middles = [(a + b) / 2 / BINS for a, b in pairwise(range(low, high + 1))]
    counts = [a + b for a, b in zip(quality.bins_true[low:high], quality.bins_false[low:high], strict=True)]
    n = sum(counts)
    return sum(m * c for m, c in zip(middles, counts, strict=True)) / n if n else (low + high) / 2 / BINS
