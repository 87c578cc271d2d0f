"""Labels: how many answers have one, how long they took, and what became of the others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from ..duration import spoken
from ..pages.drawing import Line, chart, key
from ..pages.words import percent
from ..records import Cohort, Mix
from ..statistics.quality import added
from .axis import span_of, x_names
from .records import Records, day
from .section import Block, Cards, Facts, Missing, Section, Table, Tone

__all__ = ["coverage", "labels"]

FEW: Final = 0.8
"""A cohort that has less than this share of the usual labels is named."""
FATES: Final = {
    "duplicate": "said again what was known already",
    "corrected": "said otherwise later: the outcome was restated",
    "confirmed": "confirmed by a more trusted source",
    "outranked": "said otherwise, by a source that is trusted less",
    "late": "came after the horizon: counted nowhere",
    "orphan": "answered nothing that was asked",
    "parked": "came before their answer, and waited",
    "capped": "beyond what their source may have of all labels",
    "blank": "had no value",
    "malformed": "could not be read",
    "disordered": "came after their time had passed",
}
"""What may become of a label beside meeting its answer."""


def coverage(cohorts: Sequence[Cohort]) -> tuple[int, int, int, int, int]:
    """Answers, those with a label, silence taken as declared, nothing known in time, and still waiting."""
    answers, given = sum(c.answers for c in cohorts), sum(c.labels for c in cohorts)
    silent, unanswered = sum(c.silent for c in cohorts), sum(c.unanswered for c in cohorts)
    return answers, given, silent, unanswered, max(answers - given - silent - unanswered, 0)


def labels(records: Records) -> Section:
    """Coverage and delay."""
    title, known = "Labels", [pair.known for pair in records.cohorts]
    within = spoken(records.model.label.within)
    answers, given, silent, unanswered, waiting = coverage(known)
    if not answers:
        return Section("labels", title, "No answer was given in this period.", [Missing("There is nothing to label.")], "unknown")
    pairs = [("answers", f"{answers:,}"), ("labelled", percent(given, answers)), ("horizon", within)]
    pairs += [("silent, taken as declared", percent(silent, answers))] if silent else []
    pairs += [("never labelled", percent(unanswered, answers)), ("still waited for", percent(waiting, answers))]
    cards, half, most = _cards(records, known, given)
    pairs += [("half within", half), ("9 in 10 within", most)] if given else []
    blocks: list[Block] = [Facts(pairs)]
    blocks.append(Cards(cards) if cards else Missing("No label has come for an answer of this period."))
    counts: dict[str, int] = {}
    for statistic in records.statistics:
        counts = added(counts, statistic.counts)
    odd = [(word, f"{counts[word]:,}", FATES[word]) for word in FATES if counts.get(word)]
    if odd:
        blocks.append(Table(("labels that were", "came in the period", "that is"), odd, numbers=9))
    blocks += _sources(records)
    done = [c for c in known if c.complete]
    whole, had, quiet, never, _ = coverage(done)
    said = f"{percent(given, answers)} of {answers:,} answers have a label" + (f", half of them within {half}" if given else "")
    if done and len(done) < len(known):
        said += f"; where the horizon of {within} has passed, {percent(had + quiet, whole)} are settled"
    least = min((c for c in done if c.answers), key=lambda c: (c.labels + c.silent) / c.answers, default=None)
    if least is not None and (least.labels + least.silent) / least.answers < FEW * (had + quiet) / max(whole, 1):
        said += f"; fewest of those of {day(least.start)}, {percent(least.labels + least.silent, least.answers)}"
    tone: Tone = "warn" if whole and never > 0.2 * whole else "bad" if whole and not had and not quiet else ""
    return Section("labels", title, f"{said}.", blocks, tone)


def _cards(records: Records, known: Sequence[Cohort], given: int) -> tuple[list[tuple[str, str]], str, str]:
    """Pictures of delay and of coverage, and how long half and nine tenths of the labels took."""
    if not given:
        return [], "", ""
    edges = next((c.edges for c in reversed(known) if c.edges), [])
    same = [c for c in known if list(c.edges) == list(edges)]
    delays = [sum(each) for each in zip(*(added(list(c.delays), [0] * len(edges)) for c in same), strict=True)]
    total = sum(delays) or 1
    upto = [count / total for count in accumulate(delays)]
    half, most = (next((_span(e) for e, share in zip(edges, upto, strict=False) if share >= q), "–") for q in (0.5, 0.9))
    first = max(next((at for at, share in enumerate(upto) if share > 0.001), 0) - 1, 0)
    shown = list(range(first, len(edges)))
    line = Line(
        name="labels", tone="now", points=[(float(at), upto[at]) for at in shown], dots=True,
        titles=[f"{upto[at]:.1%} within {_span(edges[at])}" for at in shown],
    )  # fmt: skip
    names = [(float(at), _span(edges[at])) for at in shown[:: max(1, len(shown) // 5)]]
    across = (float(shown[0]), float(max(shown[-1], shown[0] + 1)))
    delay = chart([line], "Share of the labels that had come, by delay", across, names, within=(0.0, 1.0))
    shares = [(c, c.labels / c.answers, (c.labels + c.silent) / c.answers) for c in known if c.answers]
    lines = [
        Line(name="labelled", tone="now", points=[(c.start.timestamp(), share) for c, share, _ in shares],
             titles=[f"{c.start:%Y-%m-%d %H:%M}: {c.labels:,} of {c.answers:,} labelled" for c, _, _ in shares])
    ]  # fmt: skip
    if any(c.silent for c in known):
        lines.insert(
            0, Line(name="settled, silence included", tone="first", points=[(c.start.timestamp(), s) for c, _, s in shares])
        )
    cover = chart(lines, "Share of the answers that have a label, by when they were given", span_of(records), x_names(records, 4),
                  within=(0.0, 1.0)) + key([(line.tone, line.name) for line in reversed(lines)])  # fmt: skip
    return [("Labels that had come, by delay", delay), ("Labelled, by when the answers were given", cover)], half, most


def _span(seconds: float) -> str:
    """
    >>> _span(0.33), _span(10800.0), _span(43200.0), _span(172800.0)
    ('0.33 s', '3 h', '12 h', '2 d')
    """
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"


def _sources(records: Records) -> list[Block]:
    mixes: dict[str, Mix] = {}
    for statistic in records.statistics:
        mixes = added(mixes, statistic.sources)
    if not mixes:
        return []
    whole = sum(mix.labels for mix in mixes.values())
    rows = [
        (name, f"{mix.labels:,}", percent(max(mix.labels, 0), max(whole, 1)), percent(max(mix.positives, 0), max(mix.labels, 1)))
        for name, mix in sorted(mixes.items())
    ]
    return [Table(("source of labels", "came in the period", "share", "positive"), rows)]
