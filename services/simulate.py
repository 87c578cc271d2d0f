"""`penstock simulate`: the whole loop in one process, from files or an example's data, as fast as it can."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.duration import DAY, HOUR
from penstock.files import Inspection
from penstock.offline import Location
from penstock.picture import Picture
from penstock.policy import Labels
from penstock.project import Project
from penstock.proof.audit import Audit, audit
from penstock.publish import FOREVER

from .embedded import Embedded, Event, scoring, slices

__all__ = ["Finished", "in_order", "run", "simulate", "slice_of", "worse"]


class Finished:
    """A run that is over: its machine (with the whole log), the audit, the picture and the seconds it took."""

    def __init__(self, machine: Embedded, found: Audit, picture: Picture, seconds: float) -> None:
        self.machine, self.audit, self.picture, self.seconds = machine, found, picture, seconds


def in_order(project: Project, found: Sequence[Inspection], days: int | None = None) -> list[Event]:
    """The events of files, of the first `days` only, in stream order: by time, kind and id."""
    rows: list[tuple[int, int, str, Event]] = []
    for each in found:
        event = each.file.event
        named = msgspec.defstruct("Named", [("name", str)], rename={"name": (event.id or event.key).name})
        decode, rank = msgspec.json.Decoder(named, strict=False).decode, project.topology.rank[event]
        for key, value, micros in each.records():
            name: str = decode(value).name  # type: ignore[attr-defined]
            rows.append((micros, rank, name, (event.topic, key, value, micros)))
    rows.sort(key=lambda row: row[:3])
    end = rows[0][0] + days * DAY if rows and days is not None else FOREVER
    return [row[3] for row in rows if row[0] < end]


def slice_of(project: Project) -> int:
    """How much stream time is published at once, so that what is decided has its effect before what follows: what an incremental
    learner and the monitors need, a day at most."""
    periods = [model.incremental.period for model in project.models if model.incremental]
    periods += [monitor.every for model in project.models for monitor in model.monitors if not isinstance(monitor, Labels)]
    return min([*periods, DAY]) if project.models else 7 * DAY


async def run(machine: Embedded, events: Sequence[Event], watch: Callable[[int, int], Awaitable[None]] | None = None) -> None:
    """Have a machine live through events in order of time, to their end. `watch(published, microseconds)` is called as it goes,
    with the time up to which all is out and has had its effects."""
    await machine.start()
    published = 0
    for part, before in slices(events, max(slice_of(machine.project), HOUR)):
        await machine.publish(part, before)
        await machine.settle()
        published += len(part)
        if watch is not None:
            await watch(published, part[-1][3] if before == FOREVER else before)
    if not events:
        await machine.publish([], FOREVER)
        await machine.settle()
    await machine.close()


async def simulate(
    project: Project,
    events: Sequence[Event],
    folder: Path | None = None,
    partitions: int = 1,
    tables: Location | None = None,
    watch: Callable[[Picture, int, int], None] | None = None,
    seed: int = 0,
) -> Finished:
    """Run a project over events in order of time. `watch(picture, published, microseconds)`: see `run`."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        machine = Embedded(project, folder or Path(scratch), partitions, tables=tables, seed=seed)
        picture, began = Picture(machine.topics), time.perf_counter()

        async def look(published: int, micros: int) -> None:
            if watch is not None:
                await picture.watch(machine.log)
                watch(picture, published, micros)

        await run(machine, events, look)
        seconds = time.perf_counter() - began
        await picture.watch(machine.log)
        return Finished(machine, await audit(machine.log, machine.topics, scoring(machine.artefacts, project)), picture, seconds)


BESIDE: Final = {"first_model": "the first model, kept unchanged", "prior": "the recent rate of positive labels alone"}
"""What answers are held against."""
RECENT: Final = {**BESIDE, "prior": "what recent labels alone would have answered"}
"""The same, where labels are numbers or classes."""


def worse(found: Audit, demanding: bool = False) -> list[str]:
    """Where the answers served were worse than the prior, or than the first model kept unchanged; `demanding`: not better."""
    said = [
        f"the answers served are worse than {RECENT[name]}: {named} {each['served']:.4f}, and {loss:.4f} by it"
        for named, each in found.losses.items()
        for name, loss in each.items()
        if name in BESIDE and each["served"] > loss
    ]
    if found.losses and not found.log_loss:
        return said
    for name in BESIDE:
        for measure, sign, title in ((found.auc, 1, "area under the curve"), (found.log_loss, -1, "log loss")):
            served, other = measure.get("served"), measure.get(name)
            if served is None or other is None:
                if demanding:
                    said.append(
                        f"{title} of {BESIDE[name] if served is not None else 'the answers served'} could not be computed"
                    )
            elif sign * (served - other) < 0 or (demanding and served == other):
                word = "not better" if demanding else "worse"
                said.append(f"the answers served are {word} than {BESIDE[name]}: {title} {served:.4f}, and {other:.4f} by it")
    return list(dict.fromkeys(said))


def summary(found: Audit, seconds: float) -> dict[str, Any]:
    """The last line of `--json`."""
    return {
        "type": "summary",
        "events_in": found.events_in,
        "rows": found.rows,
        "predictions": found.predictions,
        "outcomes": found.outcomes,
        "dead_lettered": found.dead_lettered,
        "dead_letters": {named: {"count": count, "first": first} for named, (count, first) in found.causes.items()},
        "lost": found.lost,
        "counted_twice": found.counted_twice,
        "redelivered": found.redelivered,
        "judged": found.judged,
        "auc": found.auc,
        "log_loss": found.log_loss,
        "losses": found.losses,
        "alarms": found.alarms,
        "retrains": found.retrains,
        "retrains_by_alarm": found.retrains_by_alarm,
        "promotions": found.promotions,
        "seconds": round(seconds, 1),
        "worse": worse(found),
        "complaints": found.complaints,
    }
