"""Every version that answered, or was asked beside the one that did."""

from __future__ import annotations

from ..records import Measure, Paired, Quality
from ..statistics.quality import added, difference
from .quality import HEADLINES, SECOND, figure, interval, measures_of, spoken
from .records import NOBODY, SERVED, Records, kin
from .section import Block, Cell, Missing, Note, Section, Table, Tone

__all__ = ["versions"]


def versions(records: Records) -> Section:
    """Every version that answered, or was asked beside the one that did."""
    title, quality = "Versions", records.quality()
    before = quality.pop(NOBODY, Quality()).n
    served = quality.pop(SERVED, Quality()).n
    found = {name: (q, measures_of(records, q)) for name, q in quality.items() if q.n > 0}
    name = next((m for m in HEADLINES if any(m in measures for _, measures in found.values())), "")
    if not found or not name:
        what = "No version has an outcome that counts in this period"
        return Section("versions", title, f"{what}.", [Missing(f"{what}; {before:,} were of answers before there was a model.")])
    champion = records.champion
    order = sorted(found, key=lambda v: (kin(v) != kin(champion), _natural(v)))
    second = next((m for m in SECOND if m != name and any(m in measures for _, measures in found.values())), "")
    rows = []
    for version in order:
        q, measures = found[version]
        paired = _paired(records, version, champion)
        rows.append(
            (
                Cell(f"{version} ●" if version == champion else version),
                f"{q.n:,}",
                _figured(measures.get(name)),
                _figured(measures.get(second)),
                "in charge" if version == champion else _difference(paired),
                "" if version == champion else f"{paired.n:,}",
            )
        )
    loss = next((getattr(s, "loss", "log loss") for s in records.statistics), "log loss")
    heads = (
        "version",
        "outcomes",
        spoken(name),
        spoken(second),
        f"{loss} minus that of {champion}",
        "both, known since it began",
    )
    blocks: list[Block] = [Table(heads, rows)]
    blocks.append(
        Note(
            "Versions were asked about different answers; only the last two columns compare like with like: on the outcomes of "
            "both that became known since the period began, of earlier answers, too; the others are of its answers. ● in charge."
        )
    )
    if before:
        blocks.append(
            Note(f"{before:,} outcomes are of answers that were given before there was a model, and say nothing of one.")
        )
    if any(kin(version) != version for _, known in records.cohorts for version in known.quality):
        blocks.append(Note("Snapshots of an online learner are counted together."))
    said = f"{len(found)} versions were judged on {served:,} outcomes; {champion or 'none'} is in charge."
    return Section("versions", title, said, blocks)


def _paired(records: Records, version: str, champion: str) -> Paired:
    total = Paired()
    for statistic in (*records.statistics, *records.later):
        names = [name for name in statistic.quality if kin(name) == version]
        for name in names:
            total = added(total, statistic.versus(name, champion))
    return total


def _difference(paired: Paired) -> Cell:
    found = difference(paired)
    if found is None:
        return Cell("–")
    tone: Tone = "bad" if found.low > 0 else "good" if found.high < 0 else ""
    return Cell(f"{found.value:+.4f} ± {(found.high - found.low) / 2:.4f}", tone)


def _figured(measure: Measure | None) -> str:
    return "–" if measure is None else f"{figure(measure.value)} {interval(measure)}"


def _natural(version: str) -> tuple[int, str]:
    """The newest first: v12 before v9.

    >>> sorted(["v9", "v12", "online"], key=_natural)
    ['v12', 'v9', 'online']
    """
    digits = version.lstrip("v")
    return (-int(digits), version) if digits.isascii() and digits.isdigit() else (1, version)
