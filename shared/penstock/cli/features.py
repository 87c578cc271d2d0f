"""features: what is declared, what it is made from, whether it was served right, what is behind one value."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from textwrap import dedent, wrap
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import PenstockError
from . import generations, screen
from .explaining import entity_named, moment_said, number_said, online_said, page, quoted, row_of, served_said
from .options import command, project_of, project_settings, topics_of
from .stepping import stepping

if TYPE_CHECKING:
    from ..aggregate import Feature
    from ..feature import Derived, View
    from ..lineage import Lineage
    from ..offline import Tables
    from ..proof.verify import Difference, Report
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["app"]

app = typer.Typer(
    help="Views and features: lineage, proof, explanation, new versions.", no_args_is_help=True, rich_markup_mode=None
)

WIDTH: Final = 100
"""Columns of a page; names are broken into lines of so many."""
SHOWN: Final = 5
"""Differences of one cause on the screen; --json has more (`verify.KEPT`)."""
SAMPLE: Final = 10_000
"""Rows that are verified when nothing else is said: what takes seconds."""

ViewName = Annotated[str, typer.Argument(metavar="VIEW", help="The name of a view.")]


# -- what is declared ------------------------------------------------------------------------------------------------


@command(app, "list")
def list_() -> None:
    """Show views: keys, features, events, who reads them."""
    from ..lineage import Lineage

    lineage = Lineage(topics_of(project_settings()).project)
    facts: list[dict[str, Any]] = []
    lines: list[str] = []
    for view in lineage.views:
        fact = _facts(view, lineage)
        facts.append(fact)
        promise = "".join(
            f", {name.replace('_', ' ')} {fact[name]}" for name in ("fresh_within", "ttl", "lateness") if fact[name]
        )
        names = "  ".join(name.partition(".")[2] for name in view.columns)
        lines += [
            f"{screen.paint(view.name, 'bold')}  by {view.key}, from {', '.join(fact['events'])}{promise}",
            f"  fingerprint {view.fingerprint}, read by {', '.join(fact['models']) or 'no model'}",
            *wrap(names, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False),
            "",
        ]
    screen.answer({"views": facts}, lines[:-1])
    screen.note(
        f"-> penstock features show {lineage.views[0].name}" if lineage.views else "no views: rows hold only their events"
    )


@command(app)
def show(view: ViewName) -> None:
    """Show how every feature of a view is defined."""
    from .. import duration
    from ..aggregate import hop_of
    from ..lineage import Lineage

    topics = topics_of(project_settings())
    found = _view(topics, view)
    lineage = Lineage(topics.project)
    features: list[dict[str, Any]] = []
    table = [("feature", "definition", "window", "and up to")]
    for feature in found.features:
        over = duration.spoken(feature.over) if feature.over else None
        hop = duration.spoken(hop_of(feature.over)) if feature.over else None
        made_from = lineage.above(repr(feature))
        features.append({"name": feature.name, "definition": feature.spelled(), "over": over, "hop": hop, "made_from": made_from})
        table.append((feature.name, feature.spelled(), over or "everything", f"{hop} more" if hop else ""))
    derived: list[dict[str, Any]] = [
        {"name": item.name, "source": dedent(item.spelled()), "made_from": lineage.above(repr(item))} for item in found.derived
    ]
    says = [line.strip() for line in (found.type.__doc__ or "").strip().splitlines()]
    by = {repr(event): [column.name for column in columns] for event, columns in found.by.items()}
    fact = _facts(found, lineage)
    screen.answer(
        {**fact, "by": by, "definitions": [*features, *derived]},
        f"{screen.paint(found.name, 'bold')}  by {found.key}   fingerprint {found.fingerprint}",
        (f"  {line}" for line in says),
        f"  named in {', '.join('+'.join(repr(column) for column in columns) for columns in found.by.values())}",
        f"  read by {', '.join(fact['models']) or 'no model'}",
        "",
        screen.rows(table),
        *(["", f"  {item['name']}", *(f"    {line}" for line in item["source"].rstrip().splitlines())] for item in derived),
    )
    if any(feature.over for feature in found.features):
        screen.note("a window's newer end is exact; its older end moves by hops, so it is at least as long as it says")


@command(app)
def graph(
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="A picture that GitHub and others draw.")] = False,
    only: Annotated[
        str | None, typer.Option("--of", metavar="NAME", help="Only what this topic, column, feature or model is connected to.")
    ] = None,
) -> None:
    """Draw lineage: from columns through views to models."""
    from ..lineage import Lineage
    from ..mistake import nearest

    lineage = Lineage(topics_of(project_settings()).project)
    meant = list(lineage.nodes) if only is None else lineage.named(only)
    if only is not None and not meant:
        plain = [name.partition(":")[2] or name for name in lineage.nodes]
        raise PenstockError(f"nothing is called {only!r}", nearest(only, [*plain, *(view.name for view in lineage.views)]))
    kept = {other for name in meant for other in (name, *lineage.above(name), *lineage.below(name))}
    nodes = [node for node in lineage.nodes.values() if node.id in kept]
    edges = [edge for edge in lineage.edges if {edge.start, edge.end} <= kept]
    value = {
        "nodes": [{"id": n.id, "kind": n.kind, "of": n.of, "definition": n.said} for n in nodes],
        "edges": [{"from": e.start, "to": e.end, "role": e.role} for e in edges],
    }
    screen.answer(value, _mermaid(lineage, kept) if as_mermaid else _picture(lineage, kept))


def _facts(view: View, lineage: Lineage) -> dict[str, Any]:
    """What `list` and `show` say of a view. Lengths as they are written; None where nothing is promised."""
    from .. import duration

    lengths = {name: getattr(view, name, None) for name in ("fresh_within", "ttl", "lateness")}
    return {
        "view": view.name, "key": view.key, "features": view.columns, "events": [repr(event) for event in view.updates],
        "fingerprint": view.fingerprint, "models": lineage.readers(view),
        **{name: None if length is None else duration.spoken(length) for name, length in lengths.items()},
    }  # fmt: skip


def _picture(lineage: Lineage, kept: set[str]) -> Iterator[str]:
    """Lineage as lines: each value, what it is made from, what reads it."""
    table = [("", "made from", "read by")]
    for node in lineage.nodes.values():
        if node.id not in kept or node.kind not in ("feature", "derived", "model"):
            continue
        made = [edge for edge in lineage.edges if edge.end == node.id and edge.start in kept and edge.role != "key"]
        if node.kind == "model":
            views = dict.fromkeys(edge.start.partition(".")[0] for edge in made if edge.role == "input")
            label = "".join(f"; label {edge.start}" for edge in made if edge.role == "label")
            table.append((node.id.replace(":", " "), f"{', '.join(views)}{label}", ""))
            continue
        below = [edge.end.removeprefix("model:") for edge in lineage.edges if edge.start == node.id]
        table.append((node.id, ", ".join(edge.start for edge in made), ", ".join(below)))
    yield from screen.rows(table)


def _mermaid(lineage: Lineage, kept: set[str]) -> Iterator[str]:
    """Lineage as a Mermaid flow chart: a box per event and per view, their columns inside. Keys are dotted."""
    yield "flowchart LR"
    numbers = {name: f"n{i}" for i, name in enumerate(lineage.nodes)}
    groups: dict[str, list[str]] = {}
    for node in lineage.nodes.values():
        if node.id in kept and node.kind not in ("topic", "model"):
            groups.setdefault(node.of, []).append(node.id)
    topics = {node.of: node.id.removeprefix("topic:") for node in lineage.nodes.values() if node.kind == "topic"}
    for i, (of, names) in enumerate(groups.items()):
        topic = f" (topic {topics[of]})" if of in topics else ""
        yield f'  subgraph g{i}["{of}{topic}"]'
        yield from (f'    {numbers[name]}["{name.partition(".")[2]}"]' for name in names)
        yield "  end"
    yield from (
        f'  {numbers[node.id]}(["{node.id.replace(":", " ")}"])'
        for node in lineage.nodes.values()
        if node.kind == "model" and node.id in kept
    )
    for edge in lineage.edges:
        if edge.role != "field" and {edge.start, edge.end} <= kept:
            arrow = {"key": "-.->", "label": "-- label -->"}.get(edge.role, "-->")
            yield f"  {numbers[edge.start]} {arrow} {numbers[edge.end]}"


def _archived(settings: Settings) -> tuple[Topics, Tables]:
    """The offline tables, and the topics with as many partitions as those say: `simulate` has one, whatever the settings."""
    from ..offline import Tables
    from ..topics import Topics

    project, tables = project_of(settings), Tables(settings.offline)
    there = set(tables.names())
    counts = {tables.table(event.topic).partitions for event in project.events if event.topic in there} - {0}
    return Topics(project, counts.pop() if len(counts) == 1 else settings.partitions), tables


# -- proof -----------------------------------------------------------------------------------------------------------


@command(app)
def verify(
    sample: Annotated[int, typer.Option("--sample", metavar="N", min=1, help="How many rows, drawn from all.")] = SAMPLE,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Which rows: the same seed draws the same.")] = 0,
) -> None:
    """Recompute served rows from archived events.

    Not by the kernel that made them: plainly, from the offline tables. Every difference is given a cause: another version of
    the view, events that came late, expiry, events that are not archived yet. Exit code 1 where one is left unexplained.
    """
    from ..proof.archive import past_of, served_of
    from ..proof.verify import verify as compared

    settings = project_settings()
    topics, tables = _archived(settings)

    with stepping("row") as told:
        told(f"reading {tables.location.root}", 0, 0)
        rows = [served_of(topics, tables, event) for event in topics.project.topology.reads]
        told(f"reading {tables.location.root}: events", 0, 0)
        report = compared(topics.project.topology, past_of(topics, tables), rows, sample, seed, told)
    screen.answer(
        {
            "rows": report.rows, "of": report.of, "seed": seed, "values": report.values, "events": report.events,
            "views": report.views, "same": report.same, "causes": report.causes, "differing": report.differing,
            "differences": report.differences,
        },
        _told(report, seed),
    )  # fmt: skip
    unexplained = report.causes["unexplained"]
    if unexplained:
        first = next(d for d in report.differences if d.cause == "unexplained")
        view, _, feature = first.column.partition(".")
        fix = f"penstock features explain {view} {quoted(first.entity or '')} {feature} --id {quoted(first.id)}"
        raise PenstockError(f"{screen.count(unexplained, 'value')} of {report.values:,} unexplained", fix)


def _told(report: Report, seed: int) -> Iterator[str]:
    from ..proof.verify import CAUSES

    drawn = "all" if report.rows == report.of else f"drawn with seed {seed} from {report.of:,}"
    yield (
        f"{screen.count(report.rows, 'row')} ({drawn}), {screen.count(report.values, 'value')} of {', '.join(report.views)}, "
        f"against {screen.count(report.events, 'archived event')}"
    )
    counts = [("same", f"{report.same:,}")] + [(cause, f"{report.causes[cause]:,}") for cause in CAUSES if report.causes[cause]]
    yield from screen.rows(counts)
    for cause in CAUSES:
        found = [difference for difference in report.differences if difference.cause == cause]
        if found:
            yield ""
            yield screen.paint(cause, "red" if cause == "unexplained" else "yellow")
        for difference in found[:SHOWN]:
            yield from _difference(difference)
        if report.causes[cause] > SHOWN:
            yield f"  and {report.causes[cause] - SHOWN:,} more; see --json"


def _difference(difference: Difference) -> Iterator[str]:
    served, again = number_said(difference.served), number_said(difference.recomputed)
    whose = f" of {difference.entity or 'nobody'}" if difference.archived else ""
    yield f"  {difference.column}{whose}, row {difference.id} at {moment_said(difference.time)}"
    yield f"    served {served}, recomputed {again}: {difference.because}"
    for event in difference.events[:SHOWN]:
        at = f"{event['topic']}/{event['partition']} at {event['offset']}"
        yield f"      {at}  {event['id']}  {moment_said(event['time'])}"


# -- explanation -----------------------------------------------------------------------------------------------------


@command(app)
def explain(
    view: ViewName,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The entity; of a compound key a JSON array.")],
    feature: Annotated[str, typer.Argument(metavar="FEATURE", help="The name of a feature of the view.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As of this moment, such as 2013-02-01T12:00:00Z; default: now.")
    ] = None,
    row: Annotated[str | None, typer.Option("--id", metavar="ID", help="As served in the row of the event with this id.")] = None,
) -> None:
    """Show what is behind a value: window, tiles, events.

    From the offline tables. Without --at or --id as of the newest archived event; the value that the online store has then is
    shown beside it, where one can be reached.
    """
    if at is not None and row is not None:
        raise typer.BadParameter("--at and --id exclude each other: give one", param_hint="--at")
    from ..event import from_micros
    from ..proof.archive import past_of
    from ..proof.explain import explain as explained

    settings = project_settings()
    topics, tables = _archived(settings)
    found = _view(topics, view)
    item, label = _item(found, feature)
    columns = [f"{item!r}[{label}]"] if label else item.columns
    moment = None if at is None else _parsed(at)
    hop = next(hop.key for hop in topics.project.topology.hops if found in hop.views)
    past = _patiently(lambda: past_of(topics, tables, hop), "reading the offline tables")
    history = past.history(hop)
    if not len(past):
        raise PenstockError(
            f"no events are archived in {tables.location.root}", "penstock up   and publish events: they come within a minute"
        )
    entity = entity_named(found, history, key)
    served: dict[str, Any] | None = None
    if row is not None:
        judge, place, event = row_of(topics, tables, past, found, hop, row, entity)
        processed = history.preceding(event)
        moment, asked = int(past.times[event]), past.typed(event)
        served = served_said(judge, hop, found, columns, place, event)
    else:
        processed, asked = history.of(history.number[entity]), None
        first, last = int(past.times.min()), int(past.times.max())
        if moment is not None and moment < first:
            raise PenstockError(
                f"the archive begins at {moment_said(from_micros(first))}, after the moment asked for",
                f"give a later one, up to {moment_said(from_micros(last))}",
            )
        if moment is not None:
            processed = processed[past.moved[processed] < moment]
        moment = last if moment is None else moment
    said = explained(past, found, item, processed, moment, asked, label)
    online = online_said(settings, topics, found, entity, moment, columns) if row is None else None
    value = {"view": found.name, "key": entity, "explanation": said, "served": served, "online": online}
    screen.answer(value, page(said, entity, served, online))


def _view(topics: Topics, name: str) -> View:
    from ..mistake import nearest

    views = {view.name: view for hop in topics.project.topology.hops for view in hop.views}
    if name not in views:
        raise PenstockError(f"project {topics.project.name} has no view {name!r}", nearest(name, views))
    return views[name]


def _item(view: View, name: str) -> tuple[Feature[Any] | Derived[float], str]:
    """A feature, and which of its numbers where it has several: `by_kind[food]`."""
    from ..mistake import nearest

    items: dict[str, Feature[Any] | Derived[float]] = {f.name: f for f in view.features} | {d.name: d for d in view.derived}
    short, bracket, label = name.removeprefix(f"{view.name}.").partition("[")
    if short not in items:
        raise PenstockError(f"view {view.name} has no feature {short!r}", nearest(short, items))
    item = items[short]
    if bracket and f"{item!r}[{label}" not in item.columns:
        known = [column.partition(".")[2] for column in item.columns]
        raise PenstockError(f"feature {item!r} has no number [{label}", nearest(f"{short}[{label}", known))
    return item, label.removesuffix("]")


def _parsed(text: str) -> int:
    from ..event import to_micros

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: write 2013-02-01T12:00:00Z", param_hint="--at") from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone: write {found.isoformat()}Z for UTC", param_hint="--at")
    return to_micros(found)


def _patiently(work: Any, what: str) -> Any:
    """The result of something that takes seconds, said while one waits."""
    import asyncio

    return asyncio.run(screen.patiently(asyncio.to_thread(work), what))


generations.add(app)
