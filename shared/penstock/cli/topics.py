"""topics: what the project declares, what the broker has, what is in it."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ..errors import PenstockError
from ..log import Log
from . import broker, screen
from .options import InJson, ProjectName, settings_of, topics_of

__all__ = ["app"]

app = typer.Typer(help="The project's topics on the broker.", no_args_is_help=True, rich_markup_mode=None)

TAIL: Final = 10
"""Records that are shown before those to come, as `tail` shows lines."""

WIDTH: Final = 2_000
"""Characters of a value on the screen; --json has all of it."""


@app.command()
def plan(project: ProjectName = None, json: InJson = False) -> None:
    """Show what `topics apply` would do.

    Exit code 1 where a topic has another number of partitions than is declared.
    """
    settings = settings_of(project)
    declared = topics_of(settings).all()
    there = broker.use(settings, lambda log: log.describe(), "listing topics")
    actions = []
    for topic in declared:
        count = there.get(topic.name)
        action = "create" if count is None else "keep" if count == topic.partitions else "conflict"
        actions.append(
            {
                "action": action,
                "topic": topic.name,
                "partitions": topic.partitions,
                "there": count,
                "compacted": topic.compacted,
            }
        )
    conflicts = [a for a in actions if a["action"] == "conflict"]
    if json:
        screen.answer({"topics": actions})
    else:
        for line in screen.rows([_planned(a) for a in actions]):
            screen.say(line)
        made = sum(a["action"] == "create" for a in actions)
        kept = len(actions) - made - len(conflicts)
        screen.say(f"{made} to create, {kept} there already, {screen.count(len(conflicts), 'conflict')}")
    if conflicts:
        first = conflicts[0]
        raise PenstockError(
            f"topic {first['topic']} has {first['there']} partitions, {first['partitions']} are declared, "
            "and counts are fixed at creation",
            f"export PENSTOCK_PARTITIONS={first['there']}   or give the project another name",
        )
    if not json and made:
        screen.say("-> penstock topics apply")


def _planned(action: dict[str, Any]) -> tuple[str, ...]:
    partitions = screen.count(action["partitions"], "partition")
    if action["action"] == "conflict":
        partitions += f", but it has {action['there']}"
    return action["action"], action["topic"], partitions, "compacted" if action["compacted"] else ""


@app.command()
def apply(project: ProjectName = None, json: InJson = False) -> None:
    """Create the topics that are missing."""
    settings = settings_of(project)
    declared = topics_of(settings).all()
    made = broker.use(settings, lambda log: log.create(declared), "creating topics")
    if json:
        screen.answer({"made": made, "kept": len(declared) - len(made)})
        return
    for name in made:
        screen.say(f"  made {name}")
    screen.say(f"{screen.count(len(made), 'topic')} made, {len(declared) - len(made)} were there")


@app.command(name="list")
def list_(project: ProjectName = None, json: InJson = False) -> None:
    """Show topics: their records, who writes and who reads."""
    settings = settings_of(project)
    contracts = topics_of(settings).contracts()

    async def sizes(log: Log) -> dict[str, int]:
        there = [name for name in await log.describe() if any(c.topic.name == name for c in contracts)]
        begins, ends = await log.begins(there), await log.ends(there)
        found = dict.fromkeys(there, 0)
        for partition, end in ends.items():
            found[partition.topic] += end - begins[partition]
        return found

    held = broker.use(settings, sizes, "counting records")
    if json:
        found = [
            {
                "topic": c.topic.name,
                "partitions": c.topic.partitions,
                "records": held.get(c.topic.name),
                "key": c.key,
                "compacted": c.topic.compacted,
                "writes": c.writes,
                "reads": c.reads,
            }
            for c in contracts
        ]
        screen.answer({"topics": found})
        return
    table = [("topic", "parts", "records", "written by", "read by")]
    for c in contracts:
        records = held.get(c.topic.name)
        if c.topic.name.endswith(".dlq") and not records:
            continue
        table.append(
            (
                c.topic.name,
                str(c.topic.partitions),
                "missing" if records is None else f"{records:,}",
                ", ".join(c.writes),
                ", ".join(c.reads),
            )
        )
    for line in screen.rows(table):
        screen.say(line)
    missing = sum(c.topic.name not in held for c in contracts)
    if missing:
        screen.note(f"{screen.count(missing, 'topic')} missing\n-> penstock topics apply")
    else:
        screen.say("  (empty dead-letter topics are not listed)")


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="Any topic of the broker.")],
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help=f"From the oldest record, not the newest {TAIL}.")
    ] = False,
    most: Annotated[int, typer.Option("--max", min=0, help="Stop after so many records (0: never).", show_default=False)] = 0,
    stop: Annotated[bool, typer.Option("--no-follow", help="Stop at the end instead of waiting for more.")] = False,
    json: InJson = False,
) -> None:
    """Print records as they come; Ctrl-C ends it."""
    settings = settings_of()

    async def work(log: Log) -> int:
        broker.known(topic, await log.describe())
        starts = await log.begins([topic]) if from_beginning else await broker.newest(log, topic, most or TAIL)
        ends = await log.ends([topic])
        if not stop and not json and all(starts[p] >= end for p, end in ends.items()):
            screen.note(f"{topic} is empty; waiting for records (Ctrl-C ends it)")
        shown = 0
        async for found in broker.records(log, starts, ends if stop else None):
            screen.answer(broker.as_json(found)) if json else screen.say(_line(found))
            shown += 1
            if shown == most:
                break
        return shown

    shown = broker.use(settings, work, "")
    if not shown and not json:
        screen.note(f"{topic} is empty")


def _line(found: broker.Found) -> str:
    place = screen.paint(f"{found.partition.number}/{found.offset}", "dim")
    return f"{place}  {screen.paint(screen.printable(found.key), 'bold')}  {screen.printable(found.value, WIDTH)}"
