"""What is behind a value, on a screen: the lookups that `features explain` needs, and its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

from ..errors import PenstockError
from . import broker, screen

if TYPE_CHECKING:
    from ..feature import View
    from ..offline import Tables
    from ..proof.explain import Explanation
    from ..proof.history import History, Past
    from ..proof.verify import Judge
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["entity_named", "moment_said", "number_said", "online_said", "page", "quoted", "row_of", "served_said"]

NEWEST: Final = 12
"""Events, and tiles, on the screen; --json has all."""
BAR: Final = 24
"""Characters of the longest bar."""
LARGE: Final = 20_000
"""Names among which the nearest one is looked for; it takes a second then."""


def entity_named(view: View, history: History, key: str) -> str:
    """The entity's name as the feature store spells it; PenstockError names the nearest."""
    import msgspec

    from ..mistake import nearest

    name = key
    if len(next(iter(view.by.values()))) > 1:
        try:
            name = msgspec.json.encode(msgspec.json.decode(key, type=list[str | int | float | bool])).decode()
        except msgspec.MsgspecError:
            such = f", such as {quoted(history.names[0])}" if history.names else ""
            raise PenstockError(f"{view.name} is kept by {view.key}, and {key!r} is no JSON array", f"give one{such}") from None
    if name not in history.number:
        raise PenstockError(f"no archived event is of {view.key} {name[:200]!r}", _near(name, history.names, nearest))
    return name


def _near(name: str, names: Sequence[str], nearest: Any) -> str:
    """What to type instead; among very many names only those with the same beginning are compared."""
    close = list(names) if len(names) <= LARGE else [known for known in names if known[:2] == name[:2]][:LARGE]
    said = str(nearest(name, close))
    return said if said.startswith("did you mean") else f"there are {len(names):,}, such as {', '.join(names[:3]) or 'none'}"


def row_of(topics: Topics, tables: Tables, past: Past, view: View, hop: str, name: str, entity: str) -> tuple[Judge, int, int]:
    """The archived row of an event id: what judges it, its place among the rows, its event."""
    from ..mistake import nearest
    from ..proof.archive import served_of
    from ..proof.verify import Judge

    reads = [event for event, views in topics.project.topology.reads.items() if view in views]
    rows = [served_of(topics, tables, event) for event in reads]
    judge, history = Judge(topics.project.topology, past, rows), past.history(hop)
    for served in rows:
        for place in (i for i, known in enumerate(served.ids) if known == name):
            event = int(judge.events[served.event][place])
            if event < 0:
                raise PenstockError(f"the event of row {name} is not in the tables", "penstock features verify   says more")
            whose = int(history.entities[event])
            if whose < 0 or history.names[whose] != entity:
                of = quoted(history.names[whose]) if whose >= 0 else "none"
                raise PenstockError(f"row {name} is not of {view.key} {entity}", f"it is of {of}")
            return judge, place, event
    names = [known for served in rows for known in served.ids]
    raise PenstockError(f"no row of an event {name!r} is archived", _near(name, names, nearest))


def served_said(judge: Judge, hop: str, view: View, columns: Sequence[str], place: int, event: int) -> dict[str, Any]:
    """What the archived row says, and what came after it though it lies before it in time."""
    import numpy as np

    from ..proof.explain import number_of
    from ..proof.recompute import values
    from ..proof.running import close

    past = judge.past
    served = judge.served[past.topology.events[int(past.ranks[event])]]
    history = past.history(hop)
    processed = history.preceding(event)
    before = history.until(int(history.entities[event]), int(past.by_time[event]))
    again = values(past, view, processed, int(past.times[event]), past.typed(event))
    told = {name: float(served.columns[name][place]) for name in columns if name in served.columns}
    why = [d for _, found in judge.why(hop, view, served, np.array([place])) for d in found if d.column in columns]
    why = [d for d in why if d.cause != "late" and not (d.column in told and close(told[d.column], again[d.column]))]
    said = {name: number_of(number) for name, number in told.items()}
    known = set(processed.tolist())
    return {
        "id": served.ids[place], "time": past.spoken(event)["time"], "value": said if len(columns) > 1 else said.get(columns[0]),
        "exact": not why, "cause": why[0].cause if why else "", "because": why[0].because if why else "",
        "missed": [past.spoken(e) for e in before.tolist() if e not in known],
    }  # fmt: skip


def online_said(
    settings: Settings, topics: Topics, view: View, entity: str, moment: int, columns: Sequence[str]
) -> dict[str, Any] | None:
    """What the online store has at that moment; None where there is no store, and why where it cannot be asked."""
    _, url = broker.servers(settings)
    if not url:
        return None
    import asyncio

    from ..event import from_micros
    from ..online.reader import OnlineFeatures
    from ..store import StoreError
    from ..store.redis import RedisStore

    async def ask() -> dict[str, Any]:
        store = RedisStore(url, topics.project.name)
        try:
            reading = await OnlineFeatures(topics, store).view(view.name, entity, moment)
        finally:
            await store.close()
        told = {name: reading.values.get(name.partition(".")[2]) for name in columns}
        value = told if len(columns) > 1 else told[columns[0]]
        return {"value": value, "as_of": from_micros(reading.as_of), "status": reading.status}

    try:
        return asyncio.run(ask())
    except (StoreError, OSError, ValueError) as error:
        return {"value": None, "as_of": None, "status": f"cannot be asked: {error}"}


def page(said: Explanation, entity: str, served: dict[str, Any] | None, online: dict[str, Any] | None) -> Iterator[str]:
    """One value on a screen."""
    several = said.parts is not None and said.inside
    value = number_said(said.parts if several else said.value)
    yield f"{screen.paint(said.feature, 'bold')} of {entity} is {screen.paint(value, 'bold')}"
    yield ""
    yield from screen.rows(list(_facts_of(said, served, online)))
    if said.parts is not None and not several:
        yield ""
        yield from screen.rows([("made from", "")] + [(name, number_said(value)) for name, value in said.parts.items()])
        yield from (f"    {line}" for line in dedent(said.definition).rstrip().splitlines())
    if said.tiles:
        yield ""
        yield from _tiles(said)
    if said.inside:
        yield ""
        yield from _events(said)
    if served and served["missed"]:
        yield ""
        yield screen.paint(f"  before it in time, but came after it: {screen.count(len(served['missed']), 'event')}", "yellow")
        yield from screen.rows([_place(event) for event in served["missed"][-NEWEST:]])


def _facts_of(said: Explanation, served: dict[str, Any] | None, online: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if said.parts is None or said.inside:
        yield "definition", said.definition
    yield "as of", moment_said(said.as_of)
    if said.start is not None and said.seconds is not None:
        length = f"{_length(said.seconds)} long: {said.over}, and its older end moves by {said.hop}"
        yield "window", f"from {moment_said(said.start)}, {length}"
    if said.parts is None or said.inside:
        late = sum(event.behind > 0 for event in said.inside)
        yield "events", f"{len(said.inside):,} inside" + (f", {late:,} of them late" if late else ", all in order")
    yield "recomputed", number_said(said.parts if said.parts and said.inside else said.value)
    if served is not None:
        cause = f", {served['cause']}: {served['because']}" if served["cause"] else ""
        verdict = "the same" if served["exact"] else f"another{cause}"
        yield "served", f"{number_said(served['value'])} in the row of {served['id']} at {moment_said(served['time'])}: {verdict}"
    if online is not None:
        as_of = f", as of {moment_said(online['as_of'])}" if online["as_of"] else ""
        yield "online store", f"{number_said(online['value'])}, {online['status']}{as_of}"


def _tiles(said: Explanation) -> Iterator[str]:
    tiles = said.tiles[-NEWEST:]
    most = max(tile.events for tile in tiles)
    table = [["tile from", "events", "", "sum", "least", "most"]]
    for tile in tiles:
        numbers = ["" if value is None else number_said(value) for value in (tile.sum, tile.min, tile.max)]
        bar = "█" * max(1, round(BAR * tile.events / most))
        table.append([moment_said(tile.start), f"{tile.events:,}", bar, *numbers])
    yield from screen.rows(table)
    if len(said.tiles) > NEWEST:
        yield f"  and {len(said.tiles) - NEWEST:,} older tiles; see --json"


def _events(said: Explanation) -> Iterator[str]:
    table = [("event", "place", "time", "value", "")]
    for event in reversed(said.inside[-NEWEST:]):
        at = f"{event.topic}/{event.partition} at {event.offset}"
        late = f"{_length(event.behind)} late" if event.behind else ""
        held = number_said(event.value) if isinstance(event.value, int | float) else str(event.value)
        table.append((event.id, at, moment_said(event.time), held, late))
    yield from screen.rows(table)
    if len(said.inside) > NEWEST:
        yield f"  and {len(said.inside) - NEWEST:,} older events; see --json"


def _place(event: dict[str, Any]) -> tuple[str, ...]:
    return event["id"], f"{event['topic']}/{event['partition']} at {event['offset']}", moment_said(event["time"])


def moment_said(moment: datetime) -> str:
    """To the second where that is all there is.

    >>> moment_said(datetime.fromisoformat("2013-01-02T03:04:05+00:00"))
    '2013-01-02 03:04:05Z'
    """
    return f"{moment.replace(tzinfo=None).isoformat(' ')}Z"


def _length(seconds: float) -> str:
    """A length of time as a clock shows it.

    >>> _length(90061), _length(0.25)
    ('1 day, 1:01:01', '0:00:00.250000')
    """
    from datetime import timedelta

    return str(timedelta(seconds=seconds))


def number_said(value: Any) -> str:
    """A number as it is, without a tail of zeros.

    >>> number_said(3.0), number_said(0.1), number_said(1234567.0), number_said(None)
    ('3', '0.1', '1234567', 'missing')
    """
    if value is None:
        return "missing"
    if isinstance(value, dict):
        return ", ".join(f"{name.partition('[')[2].rstrip(']')}: {number_said(number)}" for name, number in value.items())
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)
