"""dlq: records that could not be taken, why, and how to send them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from ..log import Log, Partition, Send, partition_of
from ..runtime.deadletter import REPLAY, cause_of, name_of, revived
from . import broker, screen
from .options import command, project_settings, settings_of, topics_of

__all__ = ["app"]

app = typer.Typer(help="Records that could not be taken, and why.", no_args_is_help=True, rich_markup_mode=None)

WIDTH: Final = 300
"""Characters of a value on the screen; --json has all of it."""

AT_ONCE: Final = 200
"""Records sent again in one acknowledged call; the largest are 16 MiB."""

DlqTopic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, or its dead-letter topic (<topic>.dlq).")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those with this reason, such as schema.")]


@command(app, "list")
def list_() -> None:
    """Count dead letters by topic and reason."""
    settings = project_settings()
    declared = [t.name for t in topics_of(settings).all() if t.name.endswith(".dlq")]

    async def work(log: Log) -> dict[str, Counter[str]]:
        there = await log.describe()
        found: dict[str, Counter[str]] = {}
        for topic in declared:
            if topic in there:
                reasons = [cause_of(letter.headers).get("dlq.reason", "unknown") async for letter in broker.held(log, topic)]
                if reasons:
                    found[topic] = Counter(reasons)
        return found

    found = broker.use(settings, work, "reading dead letters")
    topics = [{"topic": topic, "records": sum(reasons.values()), "reasons": reasons} for topic, reasons in found.items()]
    table = [(topic, f"{n:,}", reason) for topic, reasons in found.items() for reason, n in reasons.most_common()]
    screen.answer({"topics": topics}, screen.rows(table) or "no dead letters")
    if found:
        screen.note(f"-> penstock dlq show {next(iter(found)).removesuffix('.dlq')}")


@command(app)
def show(
    topic: DlqTopic,
    reason: Reason = None,
    most: Annotated[int, typer.Option("--max", min=1, help="At most so many, the oldest first.")] = 20,
) -> None:
    """Show dead letters, their cause and where they came from."""
    letters = broker.use(settings_of(), lambda log: _letters(log, topic, reason), "reading dead letters")
    for letter in letters[:most]:
        cause = cause_of(letter.headers)
        place = f"{cause.get('dlq.topic', '?')}/{cause.get('dlq.partition', '?')} at {cause.get('dlq.offset', '?')}"
        again = f", sent again as {cause[REPLAY]}" if REPLAY in cause else ""
        screen.answer(
            {**broker.as_json(letter), "cause": cause},
            f"{screen.paint(cause.get('dlq.reason', 'unknown'), 'red')}  {cause.get('dlq.error', '')}",
            f"  {place}, refused by {cause.get('dlq.service', '?')}{again}",
            f"  {screen.printable(letter.key)}  {screen.printable(letter.value, WIDTH)}",
        )
    if not letters:
        screen.note(f"no dead letters of {_spoken(topic, reason)}")
    elif len(letters) > most:
        screen.note(f"{most} of {len(letters):,}; more:  --max {len(letters)}")


@command(app)
def replay(
    topic: DlqTopic,
    reason: Reason = None,
    again: Annotated[bool, typer.Option("--again", help="Those too that were sent before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
) -> None:
    """Send dead letters again, to where they came from.

    As they were: do this after the cause was removed. Each is sent once: the record that is sent carries the header dlq.replay
    with the place of its dead letter, and what is found under that mark is left out, unless --again. So is what was sent again
    and refused again: sending it once more would change nothing.
    """

    async def work(log: Log) -> tuple[Counter[str], int]:
        letters = await _letters(log, topic, reason)
        before = set() if again else await _marks(log, letters)
        fresh = [letter for letter in letters if again or REPLAY not in cause_of(letter.headers)]
        sends = [revived(*letter) for letter in fresh if name_of(letter.partition, letter.offset) not in before]
        for start in range(0, 0 if dry_run else len(sends), AT_ONCE):
            await log.send(sends[start : start + AT_ONCE])
        return Counter(send.topic for send in sends), len(letters) - len(sends)

    sent, left = broker.use(settings_of(), work, "sending dead letters again")
    word = "would be sent" if dry_run else "sent"
    lines = [f"{screen.count(number, 'record')} {word} to {name}" for name, number in sent.items()]
    if left:
        lines.append(f"{screen.count(left, 'record')} left out, sent before; to send them once more:  --again")
    screen.answer(
        {"sent": sum(sent.values()), "sent_before": left, "topics": sent, "dry_run": dry_run},
        lines or f"no dead letters of {_spoken(topic, reason)}: nothing sent",
    )


async def _letters(log: Log, topic: str, reason: str | None) -> list[broker.Found]:
    name = topic if topic.endswith(".dlq") else f"{topic}.dlq"
    broker.known(name, {t: n for t, n in (await log.describe()).items() if t.endswith(".dlq")})
    found: dict[tuple[str | None, ...], broker.Found] = {}
    async for letter in broker.held(log, name):  # a service that was killed may have written one twice
        cause = cause_of(letter.headers)
        if reason is None or cause.get("dlq.reason") == reason:
            origin = tuple(map(cause.get, ("dlq.topic", "dlq.partition", "dlq.offset")))
            found.setdefault(origin if None not in origin else (name_of(letter.partition, letter.offset),), letter)
    return list(found.values())


async def _marks(log: Log, letters: Sequence[broker.Found]) -> set[str]:
    """The names of dead letters that were sent again, read where these would be sent: a partition from the first position
    that one of them had there on, because a record is sent again after it was refused."""
    counts, starts = await log.describe(), dict[Partition, int]()
    for letter in letters:
        cause, send = cause_of(letter.headers), revived(*letter)
        place = _target(send, counts[broker.known(send.topic, counts)])
        own = str(place.number) == cause.get("dlq.partition")
        first = int(cause["dlq.offset"]) if own and "dlq.offset" in cause else 0
        starts[place] = min(first, starts.get(place, first))
    topics = sorted({place.topic for place in starts})
    begins, ends = await log.begins(topics), await log.ends(topics)
    starts = {place: max(start, begins[place]) for place, start in starts.items()}
    return {cause_of(found.headers).get(REPLAY, "") async for found in broker.records(log, starts, ends)}


def _target(send: Send, partitions: int) -> Partition:
    """Where the record would be written; one without key keeps its partition."""
    return Partition(send.topic, partition_of(send.key or b"", partitions) if send.partition is None else send.partition)


def _spoken(topic: str, reason: str | None) -> str:
    return f"{topic.removesuffix('.dlq')}{f' with reason {reason}' if reason else ''}"
