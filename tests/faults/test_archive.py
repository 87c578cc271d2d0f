"""Archives that are killed, doubled, or have no room: every record is in its table, and there once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.faults.archivist import PARTITIONS, filled
from tests.services.crew import ROWS, Harbour, arrival, places, row, settle, there

from penstock.errors import PenstockError
from penstock.log.kafka import KafkaLog
from penstock.offline.columns import columns_of
from penstock.offline.upkeep import compact, vacuum
from penstock.offline.verify import verify
from penstock.services.feature_store import archive as module

DEADLINE = 120.0
TOPICS = ("arrivals", ROWS)


class Crew:
    """Archivist processes; all are ended at the end, whatever happened."""

    def __init__(self, location: str, log: str, records: int) -> None:
        self.words = (location, log, str(records))
        self.hands: list[subprocess.Popen[str]] = []

    def hire(self, seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.faults.archivist", *self.words, str(seed)]
        hand = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.hands.append(hand)
        return hand

    def done(self, hand: subprocess.Popen[str]) -> int:
        """Wait for one to end by itself; how often another one had been in its place."""
        said, wrong = hand.communicate(timeout=DEADLINE)
        assert hand.returncode == 0, wrong[-3000:]
        return int(said.rpartition("fenced ")[2])

    def end(self) -> None:
        for hand in self.hands:
            if hand.poll() is None:
                os.killpg(hand.pid, signal.SIGKILL)
            hand.communicate()


@pytest.fixture
def crew() -> Iterator[Callable[[str, str, int], Crew]]:
    hired: list[Crew] = []

    def build(location: str, log: str, records: int) -> Crew:
        hired.append(Crew(location, log, records))
        return hired[-1]

    yield build
    for each in hired:
        each.end()


def versions(harbour: Harbour) -> int:
    """How many commits there are by now."""
    found = 0
    for name in TOPICS:
        try:
            found += harbour.tables.table(name).version
        except PenstockError:
            continue
    return found


def reached(harbour: Harbour, commits: int, hand: subprocess.Popen[str]) -> bool:
    """Wait for so many commits; False when the process ended before."""
    deadline = time.monotonic() + DEADLINE
    while versions(harbour) < commits:
        if hand.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing moves"
    return True


async def right(harbour: Harbour, records: int) -> None:
    """Every record once: in memory the log is the same for all processes."""
    await filled(harbour, records)
    assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
    ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
    assert sorted(ids) == sorted(f"a{n}" for n in range(records)), "a row is lost, or what was sent twice is there twice"
    for name in TOPICS:
        found = await verify(harbour.tables.table(name), columns_of(harbour.topics)[name], harbour.log)
        assert all(one.right and not one.unknown and not one.behind for one in found), found


def test_an_archive_without_room_waits_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 8 MiB, filled up to some kilobytes: where the data file still fits its commit does not, and the reverse."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tiny disk: mount says {mounted.stderr.decode().strip()} (it needs root)")
    monkeypatch.setattr("penstock.runtime.patience.RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(module, "FLUSH_ROWS", 50)
    ballast = disk / "ballast"

    async def story() -> None:
        harbour = Harbour(disk / "tables", PARTITIONS)
        await harbour.open()
        archive = harbour.archive()
        await archive.turn()
        waits, sent, stopped = archive._meters.waits._value, 0, 0
        for kilobytes in range(0, 64, 4):
            free = os.statvfs(disk)
            ballast.write_bytes(bytes(max(free.f_bavail * free.f_frsize - kilobytes * 1024, 0)))
            await harbour.log.send([arrival(n) for n in range(sent, sent + 200)])
            sent, before = sent + 200, waits.get()
            turn = asyncio.ensure_future(archive.turn(0.1))
            while not turn.done() and waits.get() < before + 3:
                await asyncio.sleep(0)
            stopped += not turn.done()
            ballast.unlink()
            await turn
        await settle(archive)
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
        assert 2 <= stopped < 16, "the disk was never full, or never free"

    try:
        asyncio.run(asyncio.wait_for(story(), DEADLINE))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_writer_that_is_killed_again_and_again_beside_zombies_loses_and_doubles_nothing(
    tmp_path: Path, crew: Callable[[str, str, int], Crew]
) -> None:
    """Kill -9 at random moments, so also between data file and commit: what such a kill leaves, no version names."""
    records, fate = 12_000, random.Random(1)
    harbour = Harbour(tmp_path, PARTITIONS)
    hands = crew(str(tmp_path), "memory", records)
    zombies, killed, writer = [hands.hire(100), hands.hire(101)], 0, hands.hire(0)
    while killed < 6 and reached(harbour, versions(harbour) + fate.randrange(3, 12), writer):
        time.sleep(fate.uniform(0.0, 0.02))  # anywhere in a step
        writer.kill()
        writer.communicate()
        killed += 1
        writer = hands.hire(killed)
    fenced = sum(map(hands.done, [*zombies, writer]))
    asyncio.run(right(harbour, records))
    assert killed >= 2 and fenced > 0, "they never met, so nothing was shown"
    orphans = 0
    for name in TOPICS:
        compact(harbour.tables, name)
        left = {path for path in harbour.tables.location.listed(name, deep=True) if path.endswith(".parquet")}
        gone = {f"{name}/{path}" for path in vacuum(harbour.tables, name, timedelta(0)).deleted}
        assert left - gone == {f"{name}/{path}" for path in harbour.tables.table(name).files} | checkpoints(left)
        orphans += len(gone)
    print(f"\nkilled {killed} times, refused {fenced} times, {orphans} files vacuumed")


def checkpoints(paths: set[str]) -> set[str]:
    return {path for path in paths if "/_delta_log/" in path}


@pytest.mark.slow
def test_replicas_on_kafka_that_are_killed_hand_their_partitions_over(
    tmp_path: Path, kafka_bootstrap: str, crew: Callable[[str, str, int], Crew]
) -> None:
    records, fate = 20_000, random.Random(2)
    harbour = Harbour(tmp_path, PARTITIONS)

    async def publish() -> None:
        log = KafkaLog(kafka_bootstrap)
        await log.create(harbour.topics.all())
        await log.send([arrival(n) for n in range(records)])
        await log.send([row(n) for n in range(records) for _ in range(2 if n % 10 == 0 else 1)])
        await log.close()

    asyncio.run(publish())
    hands = crew(str(tmp_path), kafka_bootstrap, records)
    steady, killed, writer = hands.hire(0), 0, hands.hire(1)
    while killed < 3 and reached(harbour, versions(harbour) + fate.randrange(3, 9), writer):
        writer.kill()
        writer.communicate()
        killed += 1
        writer = hands.hire(1 + killed)
    hands.done(writer)
    hands.done(steady)

    async def compare() -> None:
        log = KafkaLog(kafka_bootstrap)
        for name in TOPICS:
            found = await verify(harbour.tables.table(name), columns_of(harbour.topics)[name], log)
            assert all(one.right and not one.unknown and not one.behind for one in found), found
            assert sum(one.rows for one in found) == records
        await log.close()

    asyncio.run(compare())
    assert killed >= 2
