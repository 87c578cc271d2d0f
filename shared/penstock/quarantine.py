"""Quarantine: which outcomes no fit learns from, as of a time. The trainer and training sets ask here.

    said by people (`penstock quarantine`, on a topic)  }
    said by alarms about sources of labels              }  known -> standing at a time -> covered rows

A quarantine holds for fits from its time on, until it is lifted, for whatever was learned before, too: a fit learns from outcomes
anew, and an online learner is taught again. What alarms say is computed from them, and lifted by a record of the same id.

Learning alone is held. Quality, alarms and gates count these outcomes on, within the caps of their sources: a closed window is
published and decided on, and whether a label is bad is one person's word, which may be lifted. Who doubts what a gate saw of them
promotes or rolls back by hand. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from .event import from_micros, to_micros
from .label import Sources
from .model import Model
from .records import Alarm, Quarantine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

__all__ = ["automatic", "covered", "covers", "identified", "known", "standing"]


def identified(said: Quarantine) -> Quarantine:
    """With the id that follows from what it covers and when it began."""
    what = "/".join(str(each) for each in (said.model, said.source, said.key, said.since, said.until, said.at))
    return msgspec.structs.replace(said, id=hashlib.sha256(what.encode()).hexdigest()[:10])


def automatic(model: Model, alarms: Iterable[Alarm]) -> list[Quarantine]:
    """What the alarms about the sources of a model quarantine, where it says so (`ps.sources(quarantine=True)`): of each source
    above its cap what it said since the window that raised the alarm, until the alarm is cleared. People lift it."""
    found, under_way = list[Quarantine](), dict[str, Quarantine]()
    sources = model.label.sources
    if sources is None or not sources.quarantine:
        return found
    for alarm in sorted((a for a in alarms if (a.model, a.signal) == (model.name, Sources.signal)), key=lambda a: (a.at, a.id)):
        for source in () if alarm.state == "cleared" else map(_named, alarm.evidence.get("sources", ())):
            if source not in under_way:
                said = Quarantine(
                    id="",
                    model=model.name,
                    at=alarm.at,
                    actor="monitoring",
                    reason=f"above its cap: {alarm.id}",
                    source=source,
                    since=_since(alarm, model),
                )
                under_way[source] = identified(said)
        if alarm.state == "cleared":
            found += [msgspec.structs.replace(said, until=alarm.at) for said in under_way.values()]
            under_way.clear()
    return [*found, *under_way.values()]


def _named(evidence: dict[str, Any]) -> str:
    return str(evidence["source"])


def _since(alarm: Alarm, model: Model) -> datetime | None:
    """A label is of an event that is at most a horizon older; alarms older than the field do not say when their window began."""
    start = alarm.evidence.get("start")
    return None if start is None else datetime.fromisoformat(start) - timedelta(microseconds=model.label.within)


def known(said: Iterable[Quarantine], by_alarms: Iterable[Quarantine] = ()) -> list[Quarantine]:
    """All that there are, by time: the last word of each id, of people before alarms."""
    newest = {one.id: one for one in (*by_alarms, *said)}
    return sorted(newest.values(), key=lambda one: (one.at, one.id))


def standing(found: Iterable[Quarantine], at: int) -> list[Quarantine]:
    """Those that hold at a time in microseconds.

    >>> one = Quarantine(id="1", model="m", at=from_micros(10), actor="ada", lifted=from_micros(20))
    >>> [len(standing([one], at)) for at in (9, 10, 19, 20)]
    [0, 1, 1, 0]
    """
    now = from_micros(at)
    return [one for one in found if one.at <= now and (one.lifted is None or now < one.lifted)]


def covered(
    held: Sequence[Quarantine],
    times: Ints,
    keys: npt.NDArray[Any],
    sources: npt.NDArray[Any],
    key_of: Callable[[str], Any] = str,
    source_of: Callable[[str], Any] = str,
) -> Ints:
    """Of outcomes with the `times` of their events, their keys and sources, arrays (rows,): the place in `held` of the first that
    covers each, -1 where none does. `key_of` and `source_of` say how the arrays spell a name."""
    import numpy as np

    found = np.full(len(times), -1, np.int64)
    for place, one in reversed(list(enumerate(held))):
        inside = np.ones(len(times), bool)
        if one.since is not None:
            inside &= times >= to_micros(one.since)
        if one.until is not None:
            inside &= times < to_micros(one.until)
        if one.key:
            inside &= keys == key_of(one.key)
        if one.source:
            inside &= sources == source_of(one.source)
        found[inside] = place
    return found


def covers(said: Quarantine) -> str:
    """What a quarantine covers, in words."""
    span = " ".join(
        f"{word} {moment:%Y-%m-%d %H:%M}" for word, moment in (("since", said.since), ("until", said.until)) if moment is not None
    )
    named = [said.source and f"labels of {said.source}", said.key and f"key {said.key}", span and f"events {span}"]
    return ", ".join(each for each in named if each) or "everything"
