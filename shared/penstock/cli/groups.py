"""How good the answers of a model were to the groups of a segment, over its newest cohorts together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import PenstockError
from ..mistake import nearest
from . import cohorts, screen

if TYPE_CHECKING:
    from ..model import Model
    from ..records import Cohort, Group, Population
    from ..segment import Segment
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["Seen", "seen", "segment_of", "segmented", "show", "title"]

SHOWN: Final = ("auc", "log_loss", "accuracy", "calibration_error", "value", "mae", "rmse", "bias", "pinball", "coverage")


class Seen(NamedTuple):
    """The groups of a segment in some cohorts; `population`: the newest of these against those before."""

    cohorts: list[Cohort]
    groups: dict[str, Group]
    population: Population | None


def segment_of(model: Model, name: str) -> Segment:
    """The segment of a model by its name, with or without that of the event."""
    names = {segment.name: segment for segment in model.segments}
    names |= {segment.column.name: segment for segment in model.segments}
    if name not in names:
        declared = [segment.name for segment in model.segments]
        fix = nearest(name, declared) if declared else "declare one:  @ps.model(segments=[Event.column], ...)"
        raise PenstockError(f"{model.name} has no segment {name}", fix)
    return names[name]


def segmented(models: Sequence[Model], name: str) -> tuple[Model, Segment]:
    """The one of these models that has a segment of that name."""
    having = [model for model in models if any(name in (s.name, s.column.name) for s in model.segments)]
    if len(having) > 1:
        raise PenstockError(f"{len(having)} models have a segment {name}", f"name one:  {', '.join(m.name for m in having)}")
    if not having and len(models) != 1:
        declared = [segment.name for model in models for segment in model.segments]
        fix = nearest(name, declared) if declared else "declare one:  @ps.model(segments=[Event.column], ...)"
        raise PenstockError(f"no model has a segment {name}", fix)
    return (model := (having or models)[0]), segment_of(model, name)


def seen(settings: Settings, topics: Topics, model: Model, segment: Segment, newest: int, known: datetime | None) -> Seen:
    """What is known of the newest cohorts."""
    from ..report.records import as_known
    from ..statistics.groups import added_groups
    from ..statistics.population import population

    found = [last for _, last in as_known(cohorts.held(settings, topics, model.name), model.label, known)[-newest:]]
    levels = [cohort.groups.get(segment.name, {}) for cohort in found]
    asked = [{level: group.answers for level, group in each.items()} for each in levels]
    before: dict[str, int] = {}
    for each in asked[:-1]:
        for level, answers in each.items():
            before[level] = before.get(level, 0) + answers
    groups = added_groups(*(cohort.groups for cohort in found)).get(segment.name, {})
    return Seen(found, groups, population(asked[-1], before) if asked else None)


def title(found: Seen, segment: Segment) -> str:
    """What was looked at, for people."""
    said = f"  by {segment.name}, scored {found.cohorts[0].start:%Y-%m-%d %H:%M} to {found.cohorts[-1].end:%Y-%m-%d %H:%M}"
    moved = found.population
    if moved is not None and moved.stability > moved.chance:
        said += f"; shares have moved in the newest cohort: stability index {moved.stability:.3f}, by chance {moved.chance:.3f}"
    return said


def show(settings: Settings, topics: Topics, name: str, by: str, newest: int, known: datetime | None) -> None:
    """Print the quality of each level."""
    from ..statistics.groups import measures_of
    from ..statistics.kinds import kind_of

    model = next(model for model in topics.project.models if model.name == name)
    segment = segment_of(model, by)
    found = seen(settings, topics, model, segment, newest, known)
    levels = segment.ordered(found.groups)
    kind = kind_of(model.label)
    measures = {level: measures_of(found.groups[level], kind, model.value) for level in levels}
    names = [each for each in SHOWN if any(each in said for said in measures.values())]
    whole = sum(group.answers for group in found.groups.values())
    table = [(segment.name, "answers", "share", "settled", *(each.replace("_", " ") for each in names))]
    for level in levels:
        group, said = found.groups[level], measures[level]
        share = f"{100 * group.answers / whole:.1f}%" if whole else "–"
        cells = [cohorts.cell(said.get(each)) for each in names]
        table.append((screen.printable(level.encode()), f"{group.answers:,}", share, f"{group.quality.n:,}", *cells))
    told = {level: {"group": found.groups[level], "measures": measures[level]} for level in levels}
    value = {"model": name, "segment": segment.name, "levels": told, "population": found.population}
    screen.answer(value, screen.rows(table) if levels else [])
    screen.note(title(found, segment) if levels else cohorts.nothing(name, known))
