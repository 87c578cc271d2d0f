"""Compaction and vacuum change files and no row, and nothing that a training set needs is deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.services.crew import Harbour, arrival, grown, pinned, places, played, settle, there

from penstock.errors import PenstockError
from penstock.offline import pins
from penstock.offline.upkeep import compact, vacuum
from penstock.services.feature_store import archive as module
from penstock.services.feature_store.archive import Archive

EVERYTHING = timedelta(0)


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
