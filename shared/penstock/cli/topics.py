"""topics: what the project declares, what the broker has, what is in it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..errors import PenstockError
from ..log import Log, Partition
from . import broker, screen
from .options import command, project_settings, settings_of, topics_of

__all__ = ["app", "watch"]

app = typer.Typer(help="The project's topics on the broker.", no_args_is_help=True, rich_markup_mode=None)

TAIL: Final = 10
"""Records that `tail` shows when it is not told how many, as `tail` shows lines."""

WIDTH: Final = 2_000
"""Characters of a value on the screen; --json has all of it."""


@command(app)
def plan() -> None:
    """Show what `topics apply` would do.

    Exit code 1 where a topic has another number of partitions than is declared.
    """
    settings = project_settings()
    declared = topics_of(settings).all()
    there = broker.use(settings, lambda log: log.describe(), "listing topics")
    actions, table = [], []
    for topic in declared:
        count = there.get(topic.name)
        action = "create" if count is None else "keep" if count == topic.partitions else "conflict"
        fact = {"action": action, "topic": topic.name, "partitions": topic.partitions, "there": count}
        actions.append({**fact, "compacted": topic.compacted})
        but = f", but it has {count}" if action == "conflict" else ""
        partitions = screen.count(topic.partitions, "partition") + but
        table.append((action, topic.name, partitions, "compacted" if topic.compacted else ""))
    conflicts = [a for a in actions if a["action"] == "conflict"]
    made = sum(a["action"] == "create" for a in actions)
    kept = len(actions) - made - len(conflicts)
    told = f"{made} to create, {kept} there already, {screen.count(len(conflicts), 'conflict')}"
    screen.answer({"topics": actions}, screen.rows(table), told)
    if conflicts:
        first = conflicts[0]
        raise PenstockError(
            f"topic {first['topic']} has {first['there']} partitions, {first['partitions']} are declared, "
            "and counts are fixed at creation",
            f"export PENSTOCK_PARTITIONS={first['there']}   or give the project another name",
        )
    if made:
        screen.note("-> penstock topics apply")


@command(app)
def apply() -> None:
    """Create the topics that are missing."""
    settings = project_settings()
    declared = topics_of(settings).all()
    made = broker.use(settings, lambda log: log.create(declared), "creating topics")
    kept = len(declared) - len(made)
    told = f"{screen.count(len(made), 'topic')} made, {kept} were there"
    screen.answer({"made": made, "kept": kept}, (f"  made {name}" for name in made), told)


@command(app, "list")
def list_() -> None:
    """Show topics: their records, who writes and who reads."""
    settings = project_settings()
    contracts = topics_of(settings).contracts()

    async def sizes(log: Log) -> dict[str, int]:
        there = set(await log.describe()) & {c.topic.name for c in contracts}
        begins, ends = await log.begins(sorted(there)), await log.ends(sorted(there))
        found = dict.fromkeys(there, 0)
        for partition, end in ends.items():
            found[partition.topic] += end - begins[partition]
        return found

    counts = broker.use(settings, sizes, "counting records")
    facts, table = [], [("topic", "parts", "records", "written by", "read by")]
    for c in contracts:
        name, count = c.topic.name, counts.get(c.topic.name)
        fact = {"topic": name, "partitions": c.topic.partitions, "records": count, "key": c.key, "compacted": c.topic.compacted}
        facts.append({**fact, "writes": c.writes, "reads": c.reads})
        if count or not name.endswith(".dlq"):
            shown = "missing" if count is None else f"{count:,}"
            table.append((name, str(c.topic.partitions), shown, ", ".join(c.writes), ", ".join(c.reads)))
    screen.answer({"topics": facts}, screen.rows(table), "  (empty dead-letter topics are not listed)")
    if missing := len(contracts) - len(counts):
        screen.note(f"{screen.count(missing, 'topic')} missing\n-> penstock topics apply")


@command(app)
def tail(
    topic: Annotated[str, typer.Argument(help="Any topic of the broker.")],
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", min=0, help=f"How many records; default: {TAIL}, or with --from-beginning all."),
    ] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="The oldest records, not the newest.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes from now on, until Ctrl-C.")] = False,
) -> None:
    """Print the newest records of a topic."""

    async def newest(log: Log) -> dict[Partition, int]:
        broker.known(topic, await log.describe())
        begins, ends = await log.begins([topic]), await log.ends([topic])
        most = (sum(ends.values()) if from_beginning else TAIL) if number is None else number
        left = most
        async for found in broker.records(log, begins if from_beginning else broker.dealt(begins, ends, most), ends):
            if not left:
                break
            _show(found)
            left -= 1
        if begins == ends:
            screen.note(f"{topic} is empty")
        return ends

    async def work(log: Log) -> None:
        ends = await screen.patiently(newest(log), f"reading {topic}")
        if follow:
            await watch(log, topic, ends)

    broker.use(settings_of(), work, "")


async def watch(log: Log, topic: str, starts: dict[Partition, int]) -> None:
    """Show records as they come, for ever; LogError when the broker is away, which a reader by itself would wait out."""
    reader = await log.reader(starts)
    said = False
    try:
        while True:
            batches = await reader.read(broker.AT_ONCE, screen.SILENCE)
            for found in broker.flat(batches):
                _show(found)
            if not batches:
                await screen.patiently(log.ends([topic]), "asking the broker")
                if not said:
                    screen.note(f"waiting for new records of {topic}; Ctrl-C ends it")
            said = not batches
    finally:
        await reader.close()


def _show(found: broker.Found) -> None:
    place = screen.paint(f"{found.partition.number}/{found.offset}", "dim")
    key, value = screen.printable(found.key), screen.printable(found.value, WIDTH)
    screen.answer(broker.as_json(found), f"{place}  {screen.paint(key, 'bold')}  {value}")
