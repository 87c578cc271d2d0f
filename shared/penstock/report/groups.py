"""Groups: how good the answers are to the levels of the declared segments, and how wide the gaps between them."""

from __future__ import annotations

from ..fairness import Fairness, told
from ..pages.words import percent, ranged
from ..segment import Segment
from ..statistics.fairness import Gap, gaps_of
from ..statistics.groups import Groups, added_groups, measures_of
from ..statistics.kinds import kind_of
from .quality import figure, interval
from .records import Records
from .section import Block, Cell, Missing, Section, Table

__all__ = ["groups"]

SHOWN = ("log_loss", "auc", "accuracy", "mae", "rmse", "bias", "pinball", "coverage")


def groups(records: Records) -> Section:
    """Quality by level, and gaps with their intervals."""
    title, model = "Groups", records.model
    if not model.segments:
        why = Missing("The answers are not counted apart.", "segments=[Event.column] and monitors=[ps.fairness(Event.column)]")
        return Section("groups", title, "No segment is declared, so nothing is known of groups.", [why], "unknown")
    kind = kind_of(model.label)
    known: Groups = added_groups(*(pair.known.groups for pair in records.cohorts))
    blocks: list[Block] = []
    wide: list[tuple[Segment, Gap]] = []
    watched = {monitor.segment.column for monitor in model.monitors if isinstance(monitor, Fairness)}
    judged = 0
    for segment in model.segments:
        levels = known.get(segment.name, {})
        if not levels:
            blocks.append(Missing(f"No answer of this period was counted by {segment.name}."))
            continue
        whole, rows = sum(group.answers for group in levels.values()), []
        measures = {level: measures_of(group, kind, model.value) for level, group in levels.items()}
        shown = [name for name in SHOWN if any(name in found for found in measures.values())]
        for level in segment.ordered(levels):
            group, found = levels[level], measures[level]
            cells = [f"{figure(found[name].value)} {interval(found[name])}" if name in found else "–" for name in shown]
            rows.append((level, f"{group.answers:,}", percent(group.answers, whole), f"{max(group.quality.n, 0):,}", *cells))
        names = (name.replace("_", " ") for name in shown)
        blocks.append(Table((segment.name, "answers", "share", "with a label", *names), rows))
        gaps = gaps_of(model, segment, levels)
        wide += ((segment, gap) for gap in gaps.wide)
        judged += sum(gap.p is not None for gap in gaps.all)
        heads = ("gap in", "group", "of", "value", gaps.against or "all others", "gap", "ratio", "")
        blocks.append(Table(heads, [_row(gap, gap in gaps.wide) for gap in gaps.all], numbers=2))
    if wide:
        of = [(segment, gap) for segment, gap in wide if segment.column in watched]
        segment, worst = max(of or wide, key=lambda each: each[1].size)
        which = "the widest that is watched" if of else "the widest"
        evidence = worst.evidence | {"group": f"{segment.name} {worst.group}"}
        said = f"{len(wide)} of {judged} gaps {'is' if len(wide) == 1 else 'are'} wide, {which}: {told(evidence)}"
        return Section("groups", title, f"{said}.", blocks, "warn")
    if not judged:
        return Section("groups", title, "There are too few answers and labels to judge any gap.", blocks, "unknown")
    return Section("groups", title, f"None of {judged} gaps is both beyond chance and material.", blocks, "good")


def _row(gap: Gap, wide: bool) -> tuple[str | Cell, ...]:
    form = ".3f" if gap.scale is None else ".4g"
    shares = ("–" if share is None else f"{share:{form}}" for share in (gap.value, gap.other))
    said = Cell("wide", "warn") if wide else Cell(gap.unjudged)
    return gap.name, gap.group, f"{gap.n:,}", *shares, ranged(gap.gap, f"+{form}"), ranged(gap.ratio, ".2f"), said
