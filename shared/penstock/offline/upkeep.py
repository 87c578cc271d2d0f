"""Keeping offline tables in order: compact, vacuum, restore. All are safe beside a running archive.

`python -m penstock.offline.upkeep LOCATION TABLE [HOURS]` compacts one table, and vacuums what is older than so many hours; the
archive runs it so, in a process of its own.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec

from ..errors import PenstockError
from .location import Location, spoken
from .pins import Pin, pins
from .table import Table, Tables

__all__ = ["KEEP", "SAFE_AGE", "Compacted", "Vacuumed", "compact", "restore", "vacuum"]

KEEP: Final = timedelta(days=7)
"""How long files stay that the newest version does not need, so that older versions can be read."""

SAFE_AGE: Final = timedelta(hours=1)
"""A younger file that no version names may be one that a writer is about to commit."""

GROUP: Final = 1 << 17
"""Rows in a row group: what `Scan` decodes at a time, and readers skip by a filter."""

NICE: Final = 10


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did."""

    table: str
    version: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


def compact(tables: Tables, name: str) -> Compacted:
    """Write small files together, in order, dictionary-encoded and compressed (zstd), and clean log entries away that are
    older than `delta.logRetentionDuration`. Changes no row.

    PenstockError where a writer or another compaction came between; nothing is changed then.
    """
    from deltalake import ColumnProperties, WriterProperties
    from deltalake.exceptions import DeltaError

    table = tables.table(name)
    files, size = len(table.files), table.bytes
    written = WriterProperties(
        max_row_group_size=GROUP,
        compression="ZSTD",
        compression_level=3,
        default_column_properties=ColumnProperties(dictionary_enabled=True),
    )
    try:
        table.delta.optimize.compact(writer_properties=written)
        table.delta.cleanup_metadata()
    except DeltaError as error:
        raise PenstockError(f"compacting {name} met another change: {spoken(error)}", "try again; nothing was changed") from error
    except OSError as error:
        raise tables.location.away(error) from error
    after = tables.table(name)
    return Compacted(name, after.version, files, len(after.files), size, after.bytes)


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """Files that were deleted (paths below the table's folder), and those that only training sets kept."""

    table: str
    deleted: tuple[str, ...]
    pinned: tuple[str, ...]
    datasets: tuple[str, ...]
    """The training sets that keep them."""


def vacuum(tables: Tables, name: str, older_than: timedelta = KEEP, dry: bool = False) -> Vacuumed:
    """Delete what the newest version does not need, no training set pins, and is older than `older_than`: files that a
    compaction replaced, and files that no version ever named, left by a process that was killed before its commit.

    Versions older than that, unless pinned, cannot be read any more. `dry`: only say what would be deleted.
    PenstockError where a pinned version is gone already and its manifest does not list its files.
    """
    from deltalake.exceptions import DeltaError

    location, table = tables.location, tables.table(name)
    held = [pin for pin in pins(location) if pin.table == name]
    kept: dict[str, set[str]] = {}
    for pin in held:
        for path in _files_of(table, pin):
            kept.setdefault(path, set()).add(pin.dataset)
    hours = math.ceil(older_than / timedelta(hours=1))  # Delta takes whole ones
    try:
        found = table.delta.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
    except DeltaError as error:
        raise PenstockError(f"vacuuming {name}: {spoken(error)}", f"look with:  penstock tables history {name}") from error
    except OSError as error:
        raise location.away(error) from error
    there = set(location.listed(name, deep=True))  # Delta also names what was deleted before
    found = [path for path in found if f"{name}/{path}" in there]
    doomed, pinned = (sorted(path for path in found if (path in kept) is wanted) for wanted in (False, True))
    if not dry:
        for path in doomed:
            location.delete(f"{name}/{path}")
    return Vacuumed(name, tuple(doomed), tuple(pinned), tuple(sorted({d for path in pinned for d in kept[path]})))


def _files_of(table: Table, pin: Pin) -> set[str]:
    """The files of a pinned version: those of its manifest, and those that the log still knows."""
    try:
        return {*pin.files, *table.at(version=pin.version).files}
    except PenstockError as error:
        if pin.files:
            return set(pin.files)
        raise PenstockError(
            f"dataset {pin.dataset} pins version {pin.version} of {pin.table}, which cannot be read: {error}",
            f"nothing was deleted; repair or remove the manifest {pin.dataset}.json",
        ) from error


def restore(tables: Tables, name: str, version: int, begins: Mapping[int, int] | None = None) -> Table:
    """Make the newest version like an older one, rows and positions: the archive then writes anew what came since.

    `begins` are the oldest offsets that the log still has. PenstockError where it no longer has what would have to be written
    anew, and where the files of that version are gone. Later versions stay readable.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import DeltaError

    table = tables.table(name)
    old = table.at(version=version)
    positions, now = old.positions(), table.positions()
    for number, begin in sorted((begins or {}).items()):
        at = positions.get(number, 0)
        if at < begin and at < now.get(number, 0):
            raise PenstockError(
                f"version {version} of {name} ends at offset {at} of partition {number}, and the topic begins at {begin}: "
                f"what lies between could not be written again",
                f"choose a later version:  penstock tables history {name}",
            )
    last = {app: old.delta.transaction_version(app) for app in _apps(tables.location, name)}
    said = [Transaction(app, -1 if offset is None else offset) for app, offset in last.items() if app.startswith(table.topic_id)]
    try:
        table.delta.restore(version, commit_properties=CommitProperties(app_transactions=said))
    except (DeltaError, OSError) as error:
        raise PenstockError(
            f"version {version} of {name} cannot be restored: {spoken(error)}",
            f"choose another:  penstock tables history {name}",
        ) from error
    return tables.table(name)


def _apps(location: Location, name: str) -> set[str]:
    """All names under which the table's log keeps positions: from its newest checkpoint and the commits after it."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    log = location.listed(f"{name}/_delta_log")
    checkpoints = [path for path in log if re.search(r"\d{20}\.checkpoint.*\.parquet$", path)]
    since = max((_number(path) for path in checkpoints), default=-1)
    for path in checkpoints:
        if _number(path) == since:
            with location.files.open_input_file(path) as file:
                column = pq.read_table(file, columns=["txn"]).column("txn").combine_chunks().field("appId")
            found.update(app for app in column.unique().to_pylist() if app)
    for path in log:
        if re.search(r"/\d{20}\.json$", path) and _number(path) > since:
            for line in (location.read(path) or b"").splitlines():
                action: dict[str, Any] = msgspec.json.decode(line)
                if "txn" in action:
                    found.add(action["txn"]["appId"])
    return found


def _number(path: str) -> int:
    return int(path.rpartition("/")[2][:20])


def main(location: str, name: str, hours: str = "") -> int:
    """Compact one table and vacuum it, giving way to whoever else wants the processor; the exit code. Where one of them cannot
    be done, it says why, and does the other."""
    os.nice(NICE)
    tables, code = Tables(location), 0
    todo: list[Callable[[], object]] = [partial(compact, tables, name)]
    if hours:
        todo.append(partial(vacuum, tables, name, timedelta(hours=float(hours))))
    for work in todo:
        try:
            work()
        except PenstockError as error:
            print(f"{error}\n-> {error.fix}", file=sys.stderr)
            code = error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
