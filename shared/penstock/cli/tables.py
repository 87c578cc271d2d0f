"""tables: the offline tables, as they are and as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import PenstockError
from . import broker, screen
from .options import command, project_settings, settings_of, topics_of

if TYPE_CHECKING:
    from datetime import datetime

    from ..log import Log
    from ..offline import Table, Tables
    from ..offline.columns import Columns
    from ..offline.verify import Checked

__all__ = ["app"]

app = typer.Typer(help="The offline tables, at any version.", no_args_is_help=True, rich_markup_mode=None)

ROWS: Final = 5
"""Rows that `show` shows when it is not told how many."""

LATEST: Final = 20
"""Versions that `history` shows when it is not told how many."""

Name = Annotated[str, typer.Argument(help="The table: the name of its topic.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Tables; default: all.", show_default=False)]


def _tables() -> Tables:
    from ..offline import Tables

    return Tables(settings_of().offline)


@command(app, "list")
def list_() -> None:
    """Show the tables, and which training sets pin them."""
    from ..offline import pins

    tables = _tables()
    held: dict[str, set[str]] = {}
    for pin in pins(tables.location):
        held.setdefault(pin.table, set()).add(pin.dataset)
    facts, shown = [], [("table", "rows", "size", "version", "committed", "pinned by")]
    for name in tables.names():
        table = tables.table(name)
        datasets = sorted(held.get(name, ()))
        fact = {"table": name, "rows": table.rows, "bytes": table.bytes, "files": len(table.files), "version": table.version}
        facts.append({**fact, "committed": table.committed, "positions": table.positions(), "pinned_by": datasets})
        size, when = _size(table.bytes), f"{table.committed:%Y-%m-%d %H:%M:%S}"
        shown.append((name, f"{table.rows:,}", size, str(table.version), when, ", ".join(datasets)))
    where = f"{screen.count(len(facts), 'table')} in {tables.location.root}"
    screen.answer({"location": tables.location.root, "tables": facts}, screen.rows(shown) if facts else [], f"  {where}")
    if not facts:
        screen.note("-> penstock up   fills them; so does   penstock simulate --input DIR --tables DIR")


@command(app)
def show(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", min=0, help="As it was at this version.")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="As it was at this moment, such as 2026-02-01T12:00Z.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="How many of the newest rows.")] = ROWS,
) -> None:
    """Show a table: columns, positions, newest rows."""
    if version is not None and as_of is not None:
        raise typer.BadParameter("--version and --as-of exclude each other")
    table = _tables().table(name)
    if version is not None or as_of is not None:
        table = table.at(version=version, as_of=None if as_of is None else _moment(as_of))
    newest = _newest(table, rows)
    fact = {
        "table": name,
        "version": table.version,
        "committed": table.committed,
        "rows": table.rows,
        "columns": {field.name: str(field.type) for field in table.schema},
        "positions": table.positions(),
        "newest": newest,
    }
    at = ", ".join(f"{number}: {position:,}" for number, position in table.positions().items())
    head = f"{name}  version {table.version} of {table.committed:%Y-%m-%d %H:%M:%S} UTC, {screen.count(table.rows, 'row')}"
    lines = [f"  {field.name}  {field.type}" for field in table.schema]
    told = [_line(row) for row in newest]
    screen.answer(fact, head, lines, f"  next offset by partition: {at or 'none'}", told)


@command(app)
def history(
    name: Name,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many versions, newest first.")] = LATEST,
) -> None:
    """Show the versions of a table."""
    versions = _tables().table(name).history(number)
    facts = [{"version": v.number, "committed": v.at, "operation": v.operation, "rows": v.rows} for v in versions]
    table = [
        (str(v.number), f"{v.at:%Y-%m-%d %H:%M:%S}", v.operation.lower(), "" if v.rows is None else f"+{v.rows:,} rows")
        for v in versions
    ]
    screen.answer({"table": name, "versions": facts}, screen.rows([("version", "committed (UTC)", "what", ""), *table]))


@command(app)
def restore(
    name: Name, version: Annotated[int, typer.Option("--version", min=0, help="The version to go back to.", show_default=False)]
) -> None:
    """Make a table what it was.

    The archive, which may run meanwhile, then writes anew what came since: it notices within half a minute, or when it starts.
    Refused where the topic no longer has what would have to be written anew.
    """
    from ..offline import upkeep

    async def bounds(log: Log) -> dict[int, tuple[int, int]]:
        if name not in await log.describe():
            return {}
        begins, ends = await log.begins([name]), await log.ends([name])
        return {partition.number: (begins[partition], ends[partition]) for partition in begins}

    settings = settings_of()
    known = broker.use(settings, bounds, "asking where the topic begins and ends") if broker.servers(settings)[0] else None
    was = _tables().table(name).version
    begins = None if known is None else {number: begin for number, (begin, _) in known.items()}
    table = upkeep.restore(_tables(), name, version, begins)
    behind, positions = 0, table.positions()
    for number, (begin, end) in (known or {}).items():
        behind += end - positions.get(number, begin)
    fact = {"table": name, "version": table.version, "restored": version, "was": was, "rows": table.rows, "behind": behind}
    screen.answer(fact, f"{name} is what it was at version {version}: {screen.count(table.rows, 'row')}, version {table.version}")
    if known is None:
        screen.note("   no broker here: what came since is written anew where the feature store runs")
    elif behind:
        since = f"{screen.count(behind, 'record')} came since"
        screen.note(f"   {since}; the feature store writes them anew within half a minute, or when it starts")
    screen.note(f"-> undo:  penstock tables restore {name} --version {was}")


@command(app)
def compact(names: Names = None) -> None:
    """Write small files together.

    The archive does it by itself, about every 100 versions.
    """
    from ..offline import upkeep

    tables = _tables()
    for name in names or tables.names():
        done = upkeep.compact(tables, name)
        before, after = screen.count(done.files_before, "file"), screen.count(done.files_after, "file")
        told = f"{name}: {before}, {_size(done.bytes_before)} -> {after}, {_size(done.bytes_after)}"
        screen.answer(done, told)


@command(app)
def vacuum(
    names: Names = None,
    older_than: Annotated[str, typer.Option("--older-than", metavar="DURATION", help="Age of what goes, at least 1h.")] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete old files that nothing needs any more.

    What stays are the files of the newest version, of younger ones, and of those that training sets pin; other versions
    cannot be shown afterwards. What a process left that was killed before its commit goes, too.
    """
    from datetime import timedelta

    from ..duration import micros
    from ..offline import upkeep

    age = timedelta(microseconds=micros(older_than))
    if age < upkeep.SAFE_AGE:
        raise typer.BadParameter(f"--older-than {older_than}: a writer may be at work with files of the last hour")
    tables = _tables()
    for name in names or tables.names():
        done = upkeep.vacuum(tables, name, age, dry_run)
        told = f"{name}: {screen.count(len(done.deleted), 'file')} {'would go' if dry_run else 'deleted'}"
        pinned = f", {len(done.pinned):,} kept for {', '.join(done.datasets)}" if done.pinned else ""
        screen.answer(done, told + pinned)


@command(app)
def verify(names: Names = None) -> None:
    """Check that every record is in its table, and there once.

    Compared with the topics where a broker is reachable. Exit code 1 where a record is lost or doubled.
    """
    from ..offline.columns import columns_of, whole_of
    from ..offline.verify import verify as verified

    settings = project_settings()
    tables = _tables()
    declared = topics_of(settings)
    kept: dict[str, Columns] = columns_of(declared) | whole_of(declared)

    async def check(log: Log | None) -> list[Checked]:
        return [one for name in names or tables.names() for one in await verified(tables.table(name), kept.get(name), log)]

    if broker.servers(settings)[0]:
        found = broker.use(settings, check, "comparing tables with topics")
    else:
        import asyncio

        screen.note("no broker: gaps cannot be told from dead letters, only doubled rows are found for certain")
        found = asyncio.run(check(None))
    head = ("table", "part", "rows", "offsets", "lost", "doubled", "refused", "sent twice", "unknown", "behind")
    table = [
        (one.table, str(one.partition), f"{one.rows:,}", f"{one.first:,} to {one.next - 1:,}",
         *(f"{n:,}" for n in (one.lost, one.doubled, one.refused, one.repeated, one.unknown, one.behind)))
        for one in found
    ]  # fmt: skip
    wrong = [one for one in found if not one.right]
    verdict = f"{screen.count(sum(one.rows for one in found), 'row')}: {'WRONG' if wrong else 'each record once'}"
    screen.answer({"right": not wrong, "partitions": found}, screen.rows([head, *table]), f"  {verdict}")
    if wrong:
        one = wrong[0]
        first = ", ".join(map(str, one.examples))
        raise PenstockError(
            f"{one.table} partition {one.partition}: {one.lost} lost, {one.doubled} doubled; offsets {first}",
            f"penstock tables history {one.table}   then   penstock tables restore {one.table} --version N",
        )


def _newest(table: Table, rows: int) -> list[dict[str, Any]]:
    """The newest rows, by offset from the end of each partition, read from the files that have them."""
    if not rows:
        return []
    import pyarrow.compute as pc

    positions, wanted = table.positions(), None
    for number, position in positions.items():
        own = (pc.field("partition") == number) & (pc.field("offset") >= position - rows)
        wanted = own if wanted is None else wanted | own
    found = table.arrow(filter=wanted)
    order = [(name, "descending") for name in ("offset", "partition") if name in found.column_names]
    newest: list[dict[str, Any]] = found.sort_by(order).slice(0, rows).to_pylist() if order else found.slice(0, rows).to_pylist()
    return newest


def _line(row: dict[str, Any]) -> str:
    place = screen.paint(f"{row.get('partition')}/{row.get('offset')}", "dim")
    hidden = ("topic_id", "partition", "offset")
    return f"{place}  " + "  ".join(f"{name}={_cell(value)}" for name, value in row.items() if name not in hidden)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _moment(text: str) -> datetime:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--as-of {text}: write it as 2026-02-01T12:00Z") from None


def _size(count: int) -> str:
    """Bytes, readable.

    >>> _size(999), _size(12_345_678)
    ('999 B', '12.3 MB')
    """
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"
