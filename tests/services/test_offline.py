"""The offline tables as people read and keep them: any version, nothing that a training set needs is deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest
from tests.services.crew import PASSED, ROWS, Harbour, arrival, places, played, row, settle, there

from penstock.errors import PenstockError, SettingError, Unreachable
from penstock.log import Send
from penstock.offline import Location, Tables, pins
from penstock.offline.columns import columns_of
from penstock.offline.upkeep import compact, restore, vacuum
from penstock.offline.verify import Checked, verify
from penstock.services.feature_store import archive as module
from penstock.services.feature_store.archive import Archive

EVERYTHING = timedelta(0)


def pinned(harbour: Harbour, dataset: str, version: int, with_files: bool = True) -> list[str]:
    """Leave the manifest of a training set that needs a version of the arrivals; the files of that version."""
    files = harbour.tables.table("arrivals").at(version=version).files
    said = {"name": dataset, "tables": [{"name": "arrivals", "version": version, "files": files if with_files else []}]}
    folder = harbour.folder / "datasets"
    folder.mkdir(exist_ok=True)
    (folder / f"{dataset}.json").write_text(json.dumps(said))
    return files


async def grown(folder: Path, commits: int, partitions: int = 1) -> Harbour:
    """A harbour whose arrivals came in so many commits of ten; version n has 10 n rows."""
    harbour = Harbour(folder, partitions)
    await harbour.open()
    archive = harbour.archive()
    for first in range(0, 10 * commits, 10):
        await harbour.log.send([arrival(n) for n in range(first, first + 10)])
        while await archive.turn():
            pass
        await archive.flush()
    await archive.close()
    return harbour


# -- reading ------------------------------------------------------------------------------------------------------------


def test_a_table_is_read_as_it_is_and_as_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        assert harbour.tables.names() == ["arrivals", "arrivals.dlq", PASSED, ROWS]
        now = harbour.tables.table("arrivals")
        assert (now.version, now.rows, now.positions()) == (3, 30, {0: 30})
        then = now.at(version=2)
        assert (then.version, then.rows, then.positions()) == (2, 20, {0: 20})
        assert places(then) == (await there(harbour.log, "arrivals"))[:20]
        await harbour.kept([arrival(30)])
        assert (now.rows, harbour.tables.table("arrivals").rows) == (30, 31), "a table that is held does not change"
        newest = now.arrow(columns=["arrival_id", "depth"], filter=pc.field("offset") >= 28)
        assert newest.sort_by("depth").to_pylist() == [
            {"arrival_id": "a28", "depth": 7.0},
            {"arrival_id": "a29", "depth": 7.25},
        ]

    played(story())


def test_a_moment_means_the_version_that_was_newest_then(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 4)
        table = harbour.tables.table("arrivals")
        versions = {v.number: v for v in table.history()}
        assert list(versions) == [4, 3, 2, 1, 0] and [v.rows for v in versions.values()] == [10, 10, 10, 10, None]
        for number, version in versions.items():
            newest = max(n for n, v in versions.items() if v.at <= version.at)
            assert table.at(as_of=version.at).version == newest, f"version {number}"
        assert table.at(as_of=datetime(2100, 1, 1, tzinfo=UTC)).version == 4
        with pytest.raises(PenstockError, match="is not known before"):
            table.at(as_of=datetime(2001, 1, 1, tzinfo=UTC))
        with pytest.raises(PenstockError, match="no time zone"):
            table.at(as_of=datetime(2026, 1, 1))

    played(story())


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 1)
        with pytest.raises(PenstockError, match="no table arrival in") as said:
            harbour.tables.table("arrival")
        assert said.value.fix == "did you mean arrivals?"
        with pytest.raises(PenstockError, match="versions 0 to 1, not 7"):
            harbour.tables.table("arrivals").at(version=7)
        with pytest.raises(PenstockError, match="no column 'dept'") as said:
            harbour.tables.table("arrivals").arrow(columns=["dept"])
        assert said.value.fix == "did you mean depth?"

    played(story())
    assert Tables(tmp_path / "none").names() == []
    with pytest.raises(PenstockError, match="no table x"):
        Tables(tmp_path / "none").table("x")


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "hdfs://a/b"])
def test_a_place_of_another_kind_is_refused(root: str) -> None:
    with pytest.raises(SettingError, match="cannot be in"):
        Location(root)


def test_a_bucket_that_does_not_answer_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unreachable, match="cannot be read") as said:
        Tables("s3://lake").table("arrivals")
    assert "AWS_ENDPOINT_URL" in said.value.fix


# -- compaction, vacuum, pins ---------------------------------------------------------------------------------------------


def test_compaction_changes_files_and_no_row(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 12)
        before = harbour.tables.table("arrivals")
        done = compact(harbour.tables, "arrivals")
        after = harbour.tables.table("arrivals")
        assert (done.files_before, done.files_after, after.version) == (12, 1, before.version + 1)
        assert after.arrow().sort_by("offset") == before.arrow().sort_by("offset")
        assert after.positions() == before.positions()
        await harbour.kept([arrival(120)])
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_the_archive_tidies_in_a_process_of_its_own_and_goes_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_ROWS", 1)
    monkeypatch.setattr(module, "TIDY_EVERY", 5)

    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        archive = harbour.archive()
        archive._tidies = True
        sent = 0
        while "OPTIMIZE" not in [v.operation for v in harbour.tables.table("arrivals").history()] if sent else True:
            await harbour.log.send([arrival(sent)])
            sent += 1
            await archive.turn()
        await settle(archive)
        assert sent > 5 and places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_the_archive_deletes_what_is_older_than_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_ROWS", 1)
    monkeypatch.setattr(module, "TIDY_EVERY", 5)

    async def story() -> None:
        harbour = await grown(tmp_path, 2, partitions=1)
        [folder] = (tmp_path / "arrivals").glob("topic_id=*")
        old, young = folder / "part-00000-old.snappy.parquet", folder / "part-00000-young.snappy.parquet"
        for orphan in (old, young):
            orphan.write_bytes(b"PAR1")
        long_ago = time.time() - 3 * 3600
        os.utime(old, (long_ago, long_ago))
        archive = Archive(harbour.topics, harbour.log, harbour.tables.location, keep=timedelta(hours=2))
        archive._tidies, sent = True, 20
        while old.exists():
            await harbour.log.send([arrival(sent)])
            sent += 1
            await archive.turn()
        await settle(archive)
        assert young.exists() and places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_upkeep_keeps_what_a_training_set_pins(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 6)
        kept = set(pinned(harbour, "spring", 2))
        rows = harbour.tables.table("arrivals").arrow().sort_by("offset")
        command = [sys.executable, "-m", "penstock.offline.upkeep", str(tmp_path), "arrivals", "0"]
        assert subprocess.run(command, timeout=60, check=False).returncode == 0
        table = harbour.tables.table("arrivals")
        there_now = {str(path.relative_to(tmp_path / "arrivals")) for path in (tmp_path / "arrivals").rglob("part-*")}
        assert there_now == kept | set(table.files) and len(table.files) == 1
        assert table.arrow().sort_by("offset") == rows and table.at(version=2).rows == 20

    played(story())


def test_a_compaction_that_fails_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock.offline.upkeep", str(tmp_path), "arrivals"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "there is no table arrivals" in done.stderr and "Traceback" not in done.stderr


def test_vacuum_keeps_what_a_training_set_pins_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 6)
        compact(harbour.tables, "arrivals")
        kept = pinned(harbour, "spring", 2)
        wanted = harbour.tables.table("arrivals").at(version=2).arrow()
        dry = vacuum(harbour.tables, "arrivals", EVERYTHING, dry=True)
        done = vacuum(harbour.tables, "arrivals", EVERYTHING)
        assert dry == done and len(done.deleted) == 4 and list(done.pinned) == kept and done.datasets == ("spring",)
        table = harbour.tables.table("arrivals")
        assert table.at(version=2).arrow() == wanted and table.rows == 60
        with pytest.raises(PenstockError, match="version 4 of arrivals has been vacuumed"):
            table.at(version=4).arrow()
        (tmp_path / "datasets" / "spring.json").unlink()
        assert len(vacuum(harbour.tables, "arrivals", EVERYTHING).deleted) == 2

    played(story())


def test_vacuum_spares_the_files_of_a_manifest_whose_version_is_gone(tmp_path: Path) -> None:
    """Once log entries are cleaned away, only the manifest knows the files of a version."""

    async def story() -> None:
        harbour = await grown(tmp_path, 6)
        kept = pinned(harbour, "spring", 2)
        wanted = harbour.tables.table("arrivals").at(version=2).arrow()
        compact(harbour.tables, "arrivals")
        table = harbour.tables.table("arrivals")
        table.delta.create_checkpoint()
        for number in range(6):
            (tmp_path / "arrivals" / "_delta_log" / f"{number:020}.json").unlink()
        assert list(vacuum(harbour.tables, "arrivals", EVERYTHING).pinned) == kept
        [pin] = pins(harbour.tables.location)
        again = harbour.tables.arrow_of("arrivals", pin.files, columns=wanted.column_names)
        assert again.sort_by("offset") == wanted.sort_by("offset")
        said = {"tables": [{"name": "arrivals", "version": 2}]}
        (tmp_path / "datasets" / "spring.json").write_text(json.dumps(said))
        with pytest.raises(PenstockError, match="dataset spring pins version 2 of arrivals, which cannot be read"):
            vacuum(harbour.tables, "arrivals", EVERYTHING)

    played(story())


def test_a_manifest_that_cannot_be_read_stops_the_vacuum(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 2)
        pinned(harbour, "spring", 1)
        (tmp_path / "datasets" / "summer.json").write_text("{")
        with pytest.raises(PenstockError, match=r"summer\.json is not a manifest"):
            vacuum(harbour.tables, "arrivals", EVERYTHING)
        (tmp_path / "datasets" / "summer.json").unlink()
        assert [(pin.dataset, pin.version) for pin in pins(harbour.tables.location)] == [("spring", 1)]

    played(story())


def test_files_that_no_version_names_go_once_they_are_old(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 2)
        [folder] = (tmp_path / "arrivals").glob("topic_id=*")
        old, young = folder / "part-00000-old.snappy.parquet", folder / "part-00000-young.snappy.parquet"
        for orphan in (old, young):
            orphan.write_bytes(b"PAR1")
        long_ago = time.time() - 3 * 3600
        os.utime(old, (long_ago, long_ago))
        done = vacuum(harbour.tables, "arrivals", timedelta(hours=2))
        assert [Path(path).name for path in done.deleted] == [old.name]
        assert not old.exists() and young.exists() and harbour.tables.table("arrivals").rows == 20

    played(story())


# -- restore ------------------------------------------------------------------------------------------------------------


def test_after_a_restore_the_archive_writes_anew_what_came_since(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        await harbour.kept([row(n) for n in range(10)])
        await harbour.kept([row(n) for n in range(8, 20)])
        for name, version in (("arrivals", 1), (ROWS, 1)):
            harbour.tables.table(name).delta.delete("partition = 0")  # somebody's mistake, with another tool
            assert harbour.tables.table(name).rows == 0
            again = restore(harbour.tables, name, version)
            assert again.rows == 10 and again.positions() == {0: 10}
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted(f"a{n}" for n in range(20)), "what was sent twice is still known"

    played(story())


def test_a_running_archive_notices_a_restore(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 2)
        archive = harbour.archive()
        await archive.turn()
        await harbour.log.send([arrival(n) for n in range(20, 30)])
        await archive.turn()
        restore(harbour.tables, "arrivals", 1)
        await settle(archive)
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_a_running_archive_fills_restored_tables_of_topics_that_have_gone_quiet(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        await harbour.kept([row(n) for n in range(10)])
        await harbour.kept([row(n) for n in range(8, 20)])
        archive = harbour.archive()
        await archive.turn()
        await archive.look()
        assert not await archive.turn()
        for name in ("arrivals", ROWS):
            restore(harbour.tables, name, 1)
        await archive.look()
        await settle(archive)
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted(f"a{n}" for n in range(20))

    played(story())


def test_a_restored_partition_is_filled_when_only_another_one_has_news(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=2)
        await harbour.open()
        await harbour.kept([arrival(n)._replace(partition=n % 2) for n in range(10)])
        await harbour.kept([arrival(n)._replace(partition=0) for n in range(10, 20)])
        archive = harbour.archive()
        await archive.turn()
        restore(harbour.tables, "arrivals", 1)
        await harbour.log.send([arrival(99)._replace(partition=1)])
        await archive.turn()
        await archive.flush()
        await settle(archive)
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_two_archives_go_on_when_the_table_of_both_is_restored_beneath_them(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3, partitions=2)
        pair = [harbour.archive(), harbour.archive()]
        for n in range(3):
            for archive in pair:
                while await archive.turn():
                    pass
                await archive.flush()
                await archive.look()
            if n < 2:
                restore(harbour.tables, "arrivals", 1 + n)
                await harbour.log.send([arrival(30 + 5 * n + i) for i in range(5)])
        for archive in pair:
            await settle(archive)
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_a_restore_that_would_lose_records_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        [place] = await harbour.log.ends(["arrivals"])
        harbour.log.trim(place, 15)
        with pytest.raises(PenstockError, match="ends at offset 10 of partition 0, and the topic begins at 15"):
            restore(harbour.tables, "arrivals", 1, {0: 15})
        restore(harbour.tables, "arrivals", 2, {0: 15})
        await settle(harbour.archive())
        assert harbour.tables.table("arrivals").rows == 30

    played(story())


# -- verify -------------------------------------------------------------------------------------------------------------


async def checked(harbour: Harbour, name: str = "arrivals", asked: bool = True) -> list[Checked]:
    columns = columns_of(harbour.topics)[name]
    return await verify(harbour.tables.table(name), columns, harbour.log if asked else None)


def test_verify_explains_every_offset_that_has_no_row(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        bad = Send("arrivals", b"boat 1", b"{")
        await harbour.kept([bad, arrival(0), bad, arrival(1), bad])
        await harbour.kept([arrival(2), row(0), row(1), row(1), row(2)])
        await harbour.log.send([arrival(3)])
        [events], [rows] = await checked(harbour), await checked(harbour, ROWS)
        assert events.right and (events.rows, events.refused, events.behind, events.unknown) == (3, 3, 1, 0)
        assert rows.right and (rows.rows, rows.repeated, rows.next) == (3, 1, 4)
        [blind] = await checked(harbour, asked=False)
        assert blind.right and blind.unknown == 2, "without the log, a gap has no reason"

    played(story())


def test_verify_finds_what_is_lost_and_what_is_doubled(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        delta = harbour.tables.table("arrivals").delta
        delta.delete("offset = 7 or offset = 21")
        [one] = await checked(harbour)
        assert not one.right and (one.lost, one.doubled, one.examples) == (2, 0, [7, 21])
        from deltalake import write_deltalake

        write_deltalake(delta, harbour.tables.table("arrivals").arrow(filter=pc.field("offset") == 3), mode="append")
        [one] = await checked(harbour)
        assert (one.lost, one.doubled, one.examples) == (2, 1, [3, 7, 21])

    played(story())


def test_verify_does_not_call_lost_what_retention_took(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        [place] = await harbour.log.ends(["arrivals"])
        harbour.tables.table("arrivals").delta.delete("offset = 7 or offset = 21")
        harbour.log.trim(place, 15)
        [one] = await checked(harbour)
        assert (one.lost, one.unknown) == (1, 1)

    played(story())


def test_verify_looks_at_a_topic_that_was_made_again_apart_from_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 2)
        await harbour.log.delete(["arrivals"])
        await harbour.log.create(harbour.topics.all())
        await harbour.kept([arrival(n) for n in range(5)])
        found = await checked(harbour)
        assert sorted(one.rows for one in found) == [5, 20] and all(one.right and not one.unknown for one in found)

    played(story())
