"""Generations of the views: what is built, what it would say, which one is in charge. Commands of `penstock features`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from ..errors import PenstockError, Unreachable
from ..log import Log, Send
from . import broker, screen
from .options import command, project_of, project_settings
from .standing import Standing, built_of, charge_of, processes_of, standing_of, swaps_of
from .stepping import stepping

if TYPE_CHECKING:
    from ..proof.shadow import Comparison
    from ..records import Charge
    from ..settings import Settings
    from ..store import Store
    from ..topics import Topics

__all__ = ["add"]

LOOK: Final = 0.5
"""Seconds between two looks at how far a backfill is."""
TAKEN: Final = 60.0
"""Seconds that `swap` waits for a feature store to take over."""
NEWEST: Final = 20_000
"""Rows that are compared when nothing else is said."""


def add(app: typer.Typer) -> None:
    """The commands, beside those that `features` has."""
    for work in (generations, backfill, compare, swap, drop):
        command(app)(work)


def generations() -> None:
    """Show the kept generations, and which one is in charge."""
    settings = project_settings()

    async def work(log: Log, store: Store, topics: Topics) -> list[Standing]:
        charge, there = await charge_of(log, topics), await log.describe()
        prefix = topics.shadow.removesuffix(topics.generation)
        names = {name.removeprefix(prefix) for name in there if name.startswith(prefix)} | {topics.generation}
        found = [await standing_of(name, charge, store, topics, await processes_of(log, topics, name)) for name in sorted(names)]
        return sorted(found, key=lambda state: (not state.in_charge, not state.declared))

    found = _use(settings, work, "looking at generations")
    table = [("generation", "stands", "done until", "")]
    for state in found:
        stands = "in charge" if state.in_charge else "shadow" if state.built else "not built"
        stands += "" if state.processes else ", not running"
        table.append((state.generation, stands, state.until or "-", "your project file" if state.declared else ""))
    screen.answer({"generations": [msgspec.to_builtins(state) for state in found]}, screen.rows(table))
    mine = next(state for state in found if state.declared)
    if not mine.in_charge:
        screen.note("-> penstock features " + ("compare   then   penstock features swap" if mine.built else "backfill"))


def backfill(
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the partitions.")] = 2,
    follow: Annotated[bool, typer.Option(help="Stay when it is built, and keep up: a feature store, until Ctrl-C.")] = False,
) -> None:
    """Build what the file says now, beside what is in charge.

    From the offline tables as far as Kafka no longer keeps the events, then from Kafka. Ended anywhere, it goes on from there.
    """
    settings = project_settings()

    async def work(log: Log, store: Store, topics: Topics) -> str:
        charge = await charge_of(log, topics)
        if charge is None or (charge.generation == topics.generation and not follow):
            return f"generation {topics.generation} is in charge already: there is nothing to build beside it"
        await log.create(topics.all())
        await _built(settings, log, store, topics, processes, follow)
        return f"generation {topics.generation} is built"

    done = _use(settings, work, "")
    screen.answer({"done": done}, done)
    if done.endswith("built"):
        screen.note(
            "-> run its feature store (penstock up, or penstock features backfill --follow), then penstock features compare"
        )


def compare(
    newest: Annotated[int, typer.Option(min=1, help="Rows of the shadow that are compared, the newest.")] = NEWEST,
) -> None:
    """Compare what new views would have said with what was.

    Of events that both have said a row of: the newest have none until their time is closed. Exit code 1 where a view that did not
    change differs.
    """
    settings = project_settings()

    async def work(log: Log, store: Store, topics: Topics) -> Comparison:
        from ..proof.shadow import Comparison
        from ..runtime.generation import meant_for

        charge = await charge_of(log, topics)
        if charge is not None and charge.generation == topics.generation:
            raise PenstockError(
                f"generation {topics.generation}, your project file, is in charge: there is nothing to compare it with",
                "change a view, then: penstock features backfill   or look at what is kept: penstock features generations",
            )
        if topics.shadow not in await log.describe():
            raise PenstockError(f"generation {topics.generation} has never run", "penstock features backfill")
        found = Comparison()
        rows = {topics.rows(event) for event in topics.project.topology.reads}
        for topic in sorted(rows):
            begins, ends = await log.begins([topic]), await log.ends([topic])
            async for record in broker.records(log, broker.dealt(begins, ends, 2 * newest), ends):
                found.said(record.value or b"")
        begins, ends = await log.begins([topics.shadow]), await log.ends([topics.shadow])
        async for record in broker.records(log, broker.dealt(begins, ends, newest), ends):
            if meant_for(record.headers) in rows:
                found.shown(record.value or b"")
        return found

    found = _use(settings, work, "comparing rows")
    table = [("feature", "compared", "different", "at most by")]
    for name, of in sorted(found.features.items()):
        table.append((name, f"{of.values:,}", f"{of.different:,}", f"{of.most:g}" if of.different else ""))
    facts = {name: {"values": of.values, "different": of.different, "most": of.most} for name, of in found.features.items()}
    changed = ", ".join(sorted(found.changed)) or "no view"
    said = f"{screen.count(found.rows, 'row')} compared, of events whose time is closed; changed on purpose: {changed}"
    others = {"new": sorted(found.new), "gone": sorted(found.gone)}
    screen.answer(
        {"rows": found.rows, "features": facts, "changed": sorted(found.changed), "wrong": found.wrong, **others},
        screen.rows(table) if found.features else [],
        said,
        (f"{word}: {', '.join(names)}" for word, names in others.items() if names),
    )
    if found.wrong:
        raise PenstockError(
            f"{found.wrong[0]} differs, and its view is the same: {screen.count(len(found.wrong), 'feature')}",
            "do not swap; see what is behind a value: penstock features explain",
        )
    if not found.rows:
        screen.note("no event has both rows yet: publish some while its feature store runs")


def swap(
    to: Annotated[str, typer.Option(metavar="GENERATION", help="Default: what the project file says now.")] = "",
    changed: Annotated[bool, typer.Option(help="Also where a model's champion was fitted to other values.")] = False,
) -> None:
    """Put another generation of the views in charge.

    Its rows are the rows from here on. One record; the generation's feature store takes over, and each event has one row. To undo
    it, swap to the one before.
    """
    settings = project_settings()

    async def work(log: Log, store: Store, topics: Topics) -> dict[str, str]:
        charge = await charge_of(log, topics)
        target = to or topics.generation
        if charge is None:
            raise PenstockError("no feature store of this project has ever run", "penstock up")
        if charge.generation == target:
            raise PenstockError(f"generation {target} is in charge already", "penstock features generations")
        if not await processes_of(log, topics, target):
            raise PenstockError(
                f"no feature store of generation {target} runs, which would take over",
                "start it: penstock features backfill --follow   or   penstock up",
            )
        if not await built_of(store, topics, target):
            raise PenstockError(
                f"generation {target} is not built", "penstock features backfill   or   penstock features generations"
            )
        views = {view.name: view.fingerprint for hop in topics.project.topology.hops for view in hop.views}
        if target == topics.generation and not changed:
            _refuse_changed(topics, charge, views)
        known = {said.generation: said.views for said in await swaps_of(log, topics)} | {topics.generation: views}
        record = msgspec.json.encode(_next(charge, target, known.get(target, {})))
        await log.send([Send(topics.generations, None, record)])
        await screen.patiently(_taken(store, topics, target, charge.number + 1), f"waiting for the feature store of {target}")
        return {"in_charge": target, "before": charge.generation}

    done = _use(settings, work, "")
    screen.answer(done, f"generation {done['in_charge']} is in charge")
    screen.note(
        "-> restart what runs the old file (penstock down, penstock up): HTTP reads, tables and models follow it until then"
    )
    screen.note(f"-> to undo it: penstock features swap --to {done['before']}")


def drop(generation: Annotated[str, typer.Argument(help="See: penstock features generations")]) -> None:
    """Forget a generation that is not in charge.

    Its states and its topics are deleted.
    """
    settings = project_settings()

    async def work(log: Log, store: Store, topics: Topics) -> list[str]:
        charge = await charge_of(log, topics)
        if charge is not None and charge.generation == generation:
            raise PenstockError(f"generation {generation} is in charge", "put another one in charge: penstock features swap")
        if await processes_of(log, topics, generation):
            raise PenstockError(
                f"a feature store of generation {generation} runs", "end it first (it leaves its group in a minute)"
            )
        names = topics.of_generation(generation, await log.describe())
        if not names:
            raise PenstockError(f"there is no generation {generation}", "penstock features generations")
        await forget(store, [topics.shard(number, generation) for number in range(topics.partitions)])
        await log.delete(names)
        return names

    gone = _use(settings, work, "")
    screen.answer({"deleted": gone}, (f"  deleted {name}" for name in gone), f"generation {generation} is forgotten")


async def forget(store: Store, shards: Sequence[str]) -> None:
    """Forget states, but for the number of each one's newest write: who builds the same views again bears the same names, and
    readers drop what is numbered like something that they have had."""
    from ..runtime.outbox import Outbox
    from ..store import Change

    writes = [Outbox.unpack((await store.open(shard)).outbox).write for shard in shards]
    await store.wipe(shards)
    for shard, write in zip(shards, writes, strict=True):
        await store.write(shard, 0, Change(b"", Outbox(write=write).pack()))


# -- what they look at -----------------------------------------------------------------------------------------------


def _use(settings: Settings, work: Any, doing: str) -> Any:
    """Work with the log, the store, and the topics as the broker has them."""

    async def inside() -> Any:
        from ..store.redis import RedisStore
        from ..topics import Topics

        project = project_of(settings)
        async with broker.connected(settings) as log:
            _, redis = broker.servers(settings)
            if not redis:
                raise Unreachable("no Redis: REDIS_URL is not set, and none runs here", "penstock up --detach")
            there = await log.describe()
            if Topics(project).generations not in there:
                raise Unreachable(f"topics of {project.name} do not exist on the broker", "penstock topics apply")
            topics, store = Topics(project, there[project.events[0].topic]), RedisStore(redis, project.name)
            try:
                asked = work(log, store, topics)
                return await (screen.patiently(asked, doing) if doing else asked)
            finally:
                await store.close()

    return asyncio.run(inside())


def _next(charge: Charge, generation: str, views: dict[str, str]) -> Charge:
    from ..records import Charge

    return Charge(number=charge.number + 1, generation=generation, previous=charge.generation, views=views)


def _refuse_changed(topics: Topics, charge: Charge, views: Mapping[str, str]) -> None:
    """A champion goes on answering from the rows of whoever is in charge: it must not get other values under the same names, or
    none."""
    gone = sorted(charge.views.keys() - views.keys())
    if gone and topics.project.models:
        raise PenstockError(
            f"view {gone[0]} is in charge and no longer in the project file: versions fitted to its values would get none",
            "keep it until no version in charge reads it, or say --changed and retrain",
        )
    for model in topics.project.models:
        for view in model.views:
            if charge.views.get(view.name, views[view.name]) != views[view.name]:
                raise PenstockError(
                    f"view {view.name}, which model {model.name} reads, is defined otherwise than the one in charge: versions "
                    "that are fitted would get other values under the same names",
                    f"keep {view.name} and give the changed view a new name (both are built), or say --changed and retrain",
                )


async def _taken(store: Store, topics: Topics, generation: str, number: int) -> None:
    from ..runtime.generation import MARK, Mark

    until = time.monotonic() + TAKEN
    shards = [topics.shard(n, generation) for n in range(topics.partitions)]
    while True:
        marks = [Mark.unpack((await store.read(shard, [MARK]))[0][0]) for shard in shards]
        if min(mark.number for mark in marks) >= number:
            return
        if time.monotonic() > until:
            raise PenstockError(
                f"no feature store of generation {generation} has taken over yet; until one does, the one before goes on",
                "start it: penstock features backfill --follow   or   penstock up",
            )
        await asyncio.sleep(LOOK)


# -- building --------------------------------------------------------------------------------------------------------


async def _built(settings: Settings, log: Log, store: Store, topics: Topics, processes: int, follow: bool) -> None:
    """Run lanes of this generation in processes of their own until it is built."""
    from ..local.process import end_group, last_words, launch
    from ..runtime.lag import Lag

    kafka, redis = broker.servers(settings)
    project = str(os.path.abspath(settings.project)) if settings.project.endswith(".py") else settings.project
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "REDIS_URL": redis,
        "PENSTOCK_PROJECT": project,
        "PENSTOCK_DATA": str(settings.data.absolute()),
        "PENSTOCK_INSTANCE": "",  # several in one group, which leave it when they end
    }
    logs = [settings.data / "logs" / f"backfill.{n}.log" for n in range(processes)]
    children = [launch([sys.executable, "-m", "penstock.services", "backfill"], log=path, env=env) for path in logs]
    lag = Lag(kafka, log, topics, ["feature_store"], broker.security_of(settings))
    events = {event.topic for hop in topics.project.topology.hops for event in hop.direct}
    doing = f"building {topics.generation}"
    try:
        with stepping("event") as told:
            done = 0
            while True:
                total = sum(end for partition, end in (await log.ends(sorted(events))).items())
                left = await lag.records()
                if left is not None:
                    done = max(0, total - sum(left.values()))
                    told(doing, done, total)
                built = await built_of(store, topics, topics.generation)
                if built and not follow:
                    if waiting := total - done:
                        said = (
                            f"{screen.count(waiting, 'event')} of {total:,} waits" if waiting == 1 else f"{waiting:,} events wait"
                        )
                        screen.note(f"{said} in Kafka: nobody has closed their time yet, and whoever runs next takes them then")
                    return
                if built and doing.startswith("building"):
                    doing = f"keeping up {topics.generation}"
                    screen.note(f"generation {topics.generation} is built, and kept up from here on; Ctrl-C ends it")
                for child, path in zip(children, logs, strict=True):
                    if child.poll() == 0:
                        raise PenstockError("building was ended from outside", "to go on from there: penstock features backfill")
                    if child.poll() is not None:
                        raise PenstockError(f"building has ended: {last_words(path.read_text())}", f"see {path}")
                await asyncio.sleep(LOOK)
    finally:
        await lag.close()
        await asyncio.gather(*(asyncio.to_thread(end_group, child.pid, 8.0) for child in children))
