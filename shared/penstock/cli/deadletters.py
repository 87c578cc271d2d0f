"""dlq: records that could not be taken, why, and how to send them again."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final

import typer

from ..deadletter import cause_of
from ..errors import PenstockError
from ..log import Log, Send
from . import broker, screen
from .options import InJson, ProjectName, settings_of, topics_of

__all__ = ["app", "revived"]

app = typer.Typer(help="Records that could not be taken, and why.", no_args_is_help=True, rich_markup_mode=None)

WIDTH: Final = 300
"""Characters of a value on the screen; --json has all of it."""

AT_ONCE: Final = 200
"""Records sent again in one acknowledged call; the largest are 16 MiB."""

DlqTopic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, or its dead-letter topic (<topic>.dlq).")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those with this reason, such as schema.")]


@app.command(name="list")
def list_(project: ProjectName = None, json: InJson = False) -> None:
    """Count dead letters by topic and reason."""
    settings = settings_of(project)
    declared = [t.name for t in topics_of(settings).all() if t.name.endswith(".dlq")]

    async def work(log: Log) -> dict[str, Counter[str]]:
        there = await log.describe()
        found: dict[str, Counter[str]] = {}
        for topic in declared:
            if topic in there:
                begins, ends = await log.begins([topic]), await log.ends([topic])
                async for letter in broker.records(log, begins, ends):
                    found.setdefault(topic, Counter())[cause_of(letter.headers).get("dlq.reason", "unknown")] += 1
        return found

    found = broker.use(settings, work, "reading dead letters")
    if json:
        screen.answer(
            {
                "topics": [
                    {"topic": topic, "records": sum(reasons.values()), "reasons": reasons} for topic, reasons in found.items()
                ]
            }
        )
        return
    if not found:
        screen.say("no dead letters")
        return
    for line in screen.rows(
        [(topic, f"{n:,}", reason) for topic, reasons in found.items() for reason, n in reasons.most_common()]
    ):
        screen.say(line)
    screen.say(f"-> penstock dlq show {next(iter(found)).removesuffix('.dlq')}")


@app.command()
def show(
    topic: DlqTopic,
    reason: Reason = None,
    most: Annotated[int, typer.Option("--max", min=1, help="At most so many, the oldest first.")] = 20,
    json: InJson = False,
) -> None:
    """Show dead letters, their cause and where they came from."""
    settings = settings_of()

    async def work(log: Log) -> tuple[list[broker.Found], int]:
        letters = await _letters(log, topic, reason)
        return letters[:most], len(letters)

    letters, count = broker.use(settings, work, "reading dead letters")
    if json:
        for letter in letters:
            screen.answer({**broker.as_json(letter), "cause": cause_of(letter.headers)})
        return
    for letter in letters:
        cause = cause_of(letter.headers)
        place = f"{cause.get('dlq.topic', '?')}/{cause.get('dlq.partition', '?')} at {cause.get('dlq.offset', '?')}"
        screen.say(f"{screen.paint(cause.get('dlq.reason', 'unknown'), 'red')}  {cause.get('dlq.error', '')}")
        screen.say(f"  {place}, refused by {cause.get('dlq.service', '?')}")
        screen.say(f"  {screen.printable(letter.key)}  {screen.printable(letter.value, WIDTH)}")
    if not count:
        screen.say(f"no dead letters of {topic.removesuffix('.dlq')}{f' with reason {reason}' if reason else ''}")
    elif count > len(letters):
        screen.say(f"{len(letters)} of {count:,}; more:  --max {count}")


@app.command()
def replay(
    topic: DlqTopic,
    reason: Reason = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    json: InJson = False,
) -> None:
    """Send dead letters again, to where they came from.

    As they were: do this after the cause was removed.
    They stay in the dead-letter topic, so replaying twice sends them twice; of a repeated event id one is counted.
    """
    settings = settings_of()

    async def work(log: Log) -> Counter[str]:
        sends = [revived(letter) for letter in await _letters(log, topic, reason)]
        if not dry_run:
            for start in range(0, len(sends), AT_ONCE):
                await log.send(sends[start : start + AT_ONCE])
        return Counter(send.topic for send in sends)

    of = f"{topic.removesuffix('.dlq')}{f' with reason {reason}' if reason else ''}"
    _report(broker.use(settings, work, "sending dead letters again"), of, dry_run, json)


def _report(sent: Counter[str], of: str, dry_run: bool, json: bool) -> None:
    if json:
        screen.answer({"sent": sum(sent.values()), "topics": sent, "dry_run": dry_run})
        return
    word = "would be sent" if dry_run else "sent"
    for name, number in sent.items():
        screen.say(f"{screen.count(number, 'record')} {word} to {name}")
    if not sent:
        screen.say(f"no dead letters of {of}: nothing sent")


async def _letters(log: Log, topic: str, reason: str | None) -> list[broker.Found]:
    name = topic if topic.endswith(".dlq") else f"{topic}.dlq"
    broker.known(name, {t: n for t, n in (await log.describe()).items() if t.endswith(".dlq")})
    begins, ends = await log.begins([name]), await log.ends([name])
    found = [letter async for letter in broker.records(log, begins, ends)]
    return [letter for letter in found if reason is None or cause_of(letter.headers).get("dlq.reason") == reason]


def revived(letter: broker.Found) -> Send:
    """The original record of a dead letter: its key, value and headers, without the cause and without the number under
    which a service sent it to the dead-letter topic (readers would take it for a repeat). Its key chooses the partition
    anew."""
    from ..lane import FROM, SEQUENCE

    cause = cause_of(letter.headers)
    if "dlq.topic" not in cause:
        place = f"{letter.partition.topic}/{letter.partition.number} at {letter.offset}"
        raise PenstockError(
            f"{place} has no header dlq.topic: it was not written by Penstock",
            f"penstock dlq show {letter.partition.topic}",
        )
    headers = tuple(
        (name, value) for name, value in letter.headers if not name.startswith("dlq.") and name not in (FROM, SEQUENCE)
    )
    number: Any = int(cause["dlq.partition"]) if letter.key is None and "dlq.partition" in cause else None
    return Send(cause["dlq.topic"], letter.key, letter.value, headers, number)
