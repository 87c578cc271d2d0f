"""fairness: how the groups of a segment differ in what a model answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from ..errors import PenstockError
from ..pages.words import ranged
from . import cohorts as known
from . import groups, screen
from .options import model_of, project_settings, topics_of

if TYPE_CHECKING:
    from ..model import Model
    from ..segment import Segment
    from ..statistics.fairness import Gap

__all__ = ["fairness"]

COHORTS: Final = 14
"""As in quality."""


class _Shown(NamedTuple):
    """The gaps of a segment; `against` "": all others."""

    segment: Segment
    seen: groups.Seen
    against: str
    gaps: list[Gap]
    wide: list[Gap]


def fairness(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A model with segments.", show_default=False)],
    by: Annotated[
        str | None, typer.Option("--by", metavar="SEGMENT", help="Default: each of the model.", show_default=False)
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="LEVEL", help="Default: as the monitor says, else all others.")
    ] = None,
    cohorts: Annotated[int, typer.Option("--cohorts", min=1, help="So many, the newest, together.")] = COHORTS,
) -> None:
    """Show the gaps between the groups of a segment.

    Of the answers in the newest cohorts, with the labels known by now; the selection rate and the mean answer are of all answers,
    labelled or not. A gap is wide where it is both beyond chance (false discovery rate 5 % over all that are shown) and greater
    than is material (the gap of the monitor ps.fairness, else 0.1; which measures there are, and what 0.1 means of numbers, is
    said there). Intervals are of 95 %. What there is too little of is not judged.
    """
    settings = project_settings()
    topics = topics_of(settings)
    model = model_of(topics, name)
    segments = [groups.segment_of(model, by)] if by else list(model.segments)
    if not segments:
        raise PenstockError(f"{name} has no segments", "declare one:  @ps.model(segments=[Event.column], ...)")
    shown = [_shown(model, each, groups.seen(settings, topics, model, each, cohorts, None), against) for each in segments]
    lines = [line for each in shown if each.gaps for line in _lines(each)]
    told = {
        each.segment.name: {"against": each.against, "gaps": each.gaps, "wide": each.wide, "population": each.seen.population}
        for each in shown
    }
    screen.answer({"model": name, "segments": told}, lines)
    if not lines:
        screen.note(known.nothing(name, None))


def _shown(model: Model, segment: Segment, found: groups.Seen, against: str | None) -> _Shown:
    from ..mistake import nearest
    from ..statistics.fairness import gaps_of

    if against and found.groups and against not in found.groups:
        raise PenstockError(f"{segment.name} has no level {against}", nearest(against, list(found.groups)))
    return _Shown(segment, found, *gaps_of(model, segment, found.groups, against))


def _lines(shown: _Shown) -> list[str]:
    table: list[tuple[str, ...]] = [("measure", "group", "of", "value", "beside", "gap", "ratio", "")]
    for gap in shown.gaps:
        form = ".4f" if gap.scale is None else ".4g"
        shares = ("–" if x is None else f"{x:{form}}" for x in (gap.value, gap.other))
        said = "wide" if gap in shown.wide else gap.unjudged
        group = screen.printable(gap.group.encode())
        cells = (*shares, ranged(gap.gap, f"+{form}"), ranged(gap.ratio, ".2f"), said)
        table.append((screen.printable(gap.name.encode()), group, f"{gap.n:,}", *cells))
    head = f"{groups.title(shown.seen, shown.segment).strip()}; against {shown.against or 'all others'}"
    return [head, *screen.rows(table)]
